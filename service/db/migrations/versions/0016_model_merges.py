"""Models merged into their bases, to be downloaded."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """There are none yet."""
    op.create_table(
        "model_merges",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=512), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_model_merges_project_id_projects")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_model_merges")),
        sa.UniqueConstraint("id", name=op.f("uq_model_merges_id")),
        sa.UniqueConstraint("model", name=op.f("uq_model_merges_model")),
    )
    op.create_index(op.f("ix_model_merges_project_id"), "model_merges", ["project_id"], unique=False)
    op.create_index(op.f("ix_model_merges_finished_at"), "model_merges", ["finished_at"], unique=False)


def downgrade() -> None:
    op.execute("DELETE FROM work WHERE kind = 'merge'")
    op.drop_index(op.f("ix_model_merges_finished_at"), "model_merges")
    op.drop_index(op.f("ix_model_merges_project_id"), "model_merges")
    op.drop_table("model_merges")
