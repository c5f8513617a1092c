"""What a job was asked to watch: early stopping, the best step, a forgetting report."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Null for every job that was created before: none was asked."""
    op.add_column("jobs", sa.Column("safeguards", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "safeguards")
