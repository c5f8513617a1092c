"""Leases, attempts and crashes become rows of work of any kind; projects take turns; workers say how they are.

A job that has not ended becomes one row: what is next for it, and who holds it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "work",
        sa.Column("sequence", SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject_id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("postponements", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("lease_expires_at", sa.Float(), nullable=True),
        sa.Column("not_before", sa.Float(), nullable=True),
        sa.Column("yield_to", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_work_project_id_projects")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_work")),
        sa.UniqueConstraint("id", name=op.f("uq_work_id")),
        sa.UniqueConstraint("kind", "subject_id", name=op.f("uq_work_kind_subject_id")),
    )
    op.create_index(op.f("ix_work_subject_id"), "work", ["subject_id"], unique=False)
    op.create_index(op.f("ix_work_kind_base_sequence"), "work", ["kind", "base", "sequence"], unique=False)
    op.create_index(op.f("ix_work_owner"), "work", ["owner"], unique=False)
    op.create_table(
        "work_shares",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("served_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_work_shares_project_id_projects")),
        sa.PrimaryKeyConstraint("kind", "project_id", name=op.f("pk_work_shares")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("beat_at", sa.Float(), nullable=False),
        sa.Column("bases", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.execute(
        """
        INSERT INTO work (id, kind, subject_id, project_id, base, attempt, crashes, postponements, paused, owner,
                          lease_expires_at)
        SELECT 'work_' || id,
               CASE WHEN status = 'validating_files' THEN 'validate'
                    WHEN publication IS NOT NULL THEN 'announce'
                    ELSE 'train' END,
               id, project_id, base, attempt, crashes, 0, status = 'paused', lease_owner, lease_expires_at
        FROM jobs
        WHERE status IN ('validating_files', 'queued', 'running', 'paused')
        ORDER BY sequence
        """
    )
    for name in ("attempt", "crashes", "lease_owner", "lease_expires_at"):
        op.drop_column("jobs", name)


def downgrade() -> None:
    """Of jobs that have ended, how often they were claimed is forgotten. Work of other kinds than a job's goes."""
    op.add_column("jobs", sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("crashes", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("lease_owner", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("lease_expires_at", sa.Float(), nullable=True))
    op.execute(
        """
        UPDATE jobs SET attempt = work.attempt, crashes = work.crashes, lease_owner = work.owner,
                        lease_expires_at = work.lease_expires_at
        FROM work WHERE work.subject_id = jobs.id AND work.kind IN ('validate', 'train', 'announce')
        """
    )
    op.drop_table("workers")
    op.drop_table("work_shares")
    op.drop_table("work")
