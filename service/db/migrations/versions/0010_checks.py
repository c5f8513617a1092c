"""Checks: what is known of a job before it exists; and what they store beside tokenised files."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Nothing is known yet of the tokenised files that there are."""
    op.add_column("datasets", sa.Column("described", sa.Integer(), nullable=True))
    op.create_table(
        "checks",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=False),
        sa.Column("alias", sa.String(length=255), nullable=True),
        sa.Column("parent_model", sa.Text(), nullable=True),
        sa.Column("training_file", sa.String(length=64), nullable=False),
        sa.Column("validation_file", sa.String(length=64), nullable=True),
        sa.Column("objective", sa.String(length=32), nullable=False),
        sa.Column("tuning", sa.JSON(), nullable=False),
        sa.Column("hyperparameters", sa.JSON(), nullable=False),
        sa.Column("safeguards", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("conditions", sa.String(length=64), nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("training_data", sa.Text(), nullable=True),
        sa.Column("validation_data", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_checks_project_id_projects")),
        sa.ForeignKeyConstraint(["training_file"], ["files.id"], name=op.f("fk_checks_training_file_files")),
        sa.ForeignKeyConstraint(["validation_file"], ["files.id"], name=op.f("fk_checks_validation_file_files")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_checks")),
        sa.UniqueConstraint("id", name=op.f("uq_checks_id")),
    )
    op.create_index(op.f("ix_checks_project_id_sequence"), "checks", ["project_id", "sequence"], unique=False)
    op.create_index(op.f("ix_checks_created_at"), "checks", ["created_at"], unique=False)


def downgrade() -> None:
    op.execute("DELETE FROM work WHERE kind = 'check'")
    op.drop_index(op.f("ix_checks_created_at"), "checks")
    op.drop_index(op.f("ix_checks_project_id_sequence"), "checks")
    op.drop_table("checks")
    op.drop_column("datasets", "described")
