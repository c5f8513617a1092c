"""Tokenised files are shared by content: a job names the objects of its own, instead of where both of them lie."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Jobs that are validated already keep their private files, which no other job uses."""
    op.create_table(
        "datasets",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("object_key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("num_examples", sa.Integer(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_datasets")),
        sa.UniqueConstraint("object_key", name=op.f("uq_datasets_object_key")),
    )
    op.create_index(op.f("ix_datasets_used_at"), "datasets", ["used_at"], unique=False)
    op.add_column("jobs", sa.Column("training_data", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("validation_data", sa.Text(), nullable=True))
    op.execute("UPDATE jobs SET training_data = data_prefix || 'train.safetensors' WHERE data_prefix IS NOT NULL")
    op.execute(
        "UPDATE jobs SET validation_data = data_prefix || 'valid.safetensors' "
        "WHERE data_prefix IS NOT NULL AND validation_file IS NOT NULL"
    )
    op.drop_column("jobs", "data_prefix")


def downgrade() -> None:
    """Shared data of jobs with a validation file is not found by earlier versions: these jobs are created again."""
    op.add_column("jobs", sa.Column("data_prefix", sa.Text(), nullable=True))
    op.execute(
        "UPDATE jobs SET data_prefix = replace(training_data, 'train.safetensors', '') WHERE training_data IS NOT NULL"
    )
    op.drop_column("jobs", "validation_data")
    op.drop_column("jobs", "training_data")
    op.drop_index(op.f("ix_datasets_used_at"), "datasets")
    op.drop_table("datasets")
