"""Indexes for what many jobs, files and models made slow; and the pairs of jobs' metadata, to be found by index."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

BATCH = 1000
INDEXES = {
    "ix_files_expiring": ("files", ["expires_at"], "deleted_at IS NULL AND expires_at IS NOT NULL"),
    "ix_files_living": ("files", ["project_id", "bytes"], "deleted_at IS NULL"),
    "ix_files_unswept": ("files", ["deleted_at"], "deleted_at IS NOT NULL AND swept_at IS NULL"),
    "ix_jobs_project_id_status": ("jobs", ["project_id", "status"], None),
    "ix_jobs_training_file_status": ("jobs", ["training_file", "status"], None),
    "ix_jobs_validation_file_status": ("jobs", ["validation_file", "status"], None),
    "ix_jobs_parent_model_status": ("jobs", ["parent_model", "status"], None),
    "ix_jobs_unswept": ("jobs", ["finished_at"], "finished_at IS NOT NULL AND swept_at IS NULL"),
    "ix_jobs_training_data": ("jobs", ["training_data"], "training_data IS NOT NULL"),
    "ix_jobs_validation_data": ("jobs", ["validation_data"], "validation_data IS NOT NULL"),
    "ix_checks_training_data": ("checks", ["training_data"], "training_data IS NOT NULL"),
    "ix_checks_validation_data": ("checks", ["validation_data"], "validation_data IS NOT NULL"),
    "ix_work_held": ("work", ["kind", "lease_expires_at"], "lease_expires_at IS NOT NULL"),
    "ix_job_events_messages": ("job_events", ["job_id", "sequence"], "type = 'message'"),
    "ix_checkpoints_model_name": ("checkpoints", ["model_name"], None),
    "ix_models_project_id_sequence": ("models", ["project_id", "sequence"], None),
    "ix_models_unswept": ("models", ["deleted_at"], "deleted_at IS NOT NULL AND swept_at IS NULL"),
    "ix_checkpoint_permissions_project_id": ("checkpoint_permissions", ["project_id"], None),
}
WAITING = {"sqlite": "owner IS NULL AND paused IS 0", "postgresql": "owner IS NULL AND paused IS false"}


def upgrade() -> None:
    """Pairs of the jobs that there are are written out."""
    op.create_table(
        "job_metadata",
        sa.Column("job_sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["job_sequence"], ["jobs.sequence"], name=op.f("fk_job_metadata_job_sequence_jobs")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_job_metadata_project_id_projects")),
        sa.PrimaryKeyConstraint("job_sequence", "key", name=op.f("pk_job_metadata")),
    )
    op.create_index("ix_job_metadata_pair", "job_metadata", ["project_id", "key", "value", "job_sequence"])
    for name, (table, columns, where) in INDEXES.items():
        condition = None if where is None else sa.text(where)
        op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
    op.create_index(
        "ix_work_waiting",
        "work",
        ["kind", "base", "sequence"],
        sqlite_where=sa.text(WAITING["sqlite"]),
        postgresql_where=sa.text(WAITING["postgresql"]),
    )
    _write_pairs()


def _write_pairs() -> None:
    jobs = sa.table(
        "jobs", sa.column("sequence"), sa.column("project_id"), sa.column("metadata", sa.JSON(none_as_null=True))
    )
    pairs = sa.table(
        "job_metadata", sa.column("job_sequence"), sa.column("key"), sa.column("value"), sa.column("project_id")
    )
    connection, last = op.get_bind(), 0
    while True:
        query = sa.select(jobs).where(jobs.c.sequence > last, jobs.c.metadata.is_not(None))
        found = connection.execute(query.order_by(jobs.c.sequence).limit(BATCH)).all()
        if not found:
            return
        last = found[-1].sequence
        rows = [
            {"job_sequence": job.sequence, "key": key, "value": value, "project_id": job.project_id}
            for job in found
            for key, value in (job.metadata or {}).items()
        ]
        if rows:
            connection.execute(sa.insert(pairs), rows)


def downgrade() -> None:
    """Lists by metadata read every job again."""
    op.drop_index("ix_work_waiting", "work")
    for name, (table, _, _) in INDEXES.items():
        op.drop_index(name, table)
    op.drop_table("job_metadata")
