"""What a model is for, and the result files of a job besides its metrics."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Every model that exists generates text; no job that exists has more result files."""
    op.add_column("models", sa.Column("task", sa.String(length=32), nullable=False, server_default="generate"))
    op.add_column("jobs", sa.Column("report_files", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Models that classify stay callable only where their engines know what they are for."""
    op.drop_column("jobs", "report_files")
    op.drop_column("models", "task")
