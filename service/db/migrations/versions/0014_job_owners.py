"""Whose API key created a job."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Null for every job that exists: nobody recorded it."""
    op.add_column("jobs", sa.Column("key_id", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("key_name", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "key_name")
    op.drop_column("jobs", "key_id")
