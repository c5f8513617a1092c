"""Models that were trained elsewhere: their imports, and models without a job."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
PERMISSIONS = sa.table(
    "checkpoint_permissions",
    *(sa.column(name) for name in ("sequence", "id", "model_name", "project_id", "created_at")),
)


def upgrade() -> None:
    """Every model that exists keeps its job."""
    op.create_table(
        "model_imports",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=False),
        sa.Column("alias", sa.String(length=255), nullable=True),
        sa.Column("suffix", sa.String(length=64), nullable=True),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("owns_files", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("publication", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("tuning", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("agreement", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("swept_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_model_imports_project_id_projects")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_model_imports")),
        sa.UniqueConstraint("id", name=op.f("uq_model_imports_id")),
    )
    op.create_index(
        op.f("ix_model_imports_project_id_sequence"), "model_imports", ["project_id", "sequence"], unique=False
    )
    op.create_index(
        op.f("ix_model_imports_status_finished_at"), "model_imports", ["status", "finished_at"], unique=False
    )
    op.add_column("models", sa.Column("import_id", sa.String(length=64), nullable=True))
    _set_job_nullable(True)


def downgrade() -> None:
    """Imported models are gone: a version without imports cannot name what made them."""
    op.execute("DELETE FROM work WHERE kind IN ('import', 'announce_import')")
    op.execute(
        "DELETE FROM checkpoint_permissions WHERE model_name IN (SELECT name FROM models WHERE import_id IS NOT NULL)"
    )
    op.execute("DELETE FROM models WHERE import_id IS NOT NULL")
    _set_job_nullable(False)
    op.drop_column("models", "import_id")
    op.drop_index(op.f("ix_model_imports_status_finished_at"), "model_imports")
    op.drop_index(op.f("ix_model_imports_project_id_sequence"), "model_imports")
    op.drop_table("model_imports")


def _set_job_nullable(nullable: bool) -> None:
    """SQLite makes the table again, which it refuses while permissions refer to its rows: they step aside."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        op.alter_column("models", "job_id", existing_type=sa.String(length=64), nullable=nullable)
        return
    aside = [dict(row) for row in connection.execute(sa.select(PERMISSIONS)).mappings()]
    connection.execute(sa.delete(PERMISSIONS))
    op.drop_index("ix_models_unswept", "models")  # its condition would not be kept
    with op.batch_alter_table("models") as models:
        models.alter_column("job_id", existing_type=sa.String(length=64), nullable=nullable)
    unswept = sa.text("deleted_at IS NOT NULL AND swept_at IS NULL")
    op.create_index("ix_models_unswept", "models", ["deleted_at"], sqlite_where=unswept)
    if aside:
        connection.execute(sa.insert(PERMISSIONS), aside)
