"""What is wrong with the lines of a training file, as found while it was uploaded."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Null for files that are there: their lines were not checked, and a job checks all anyway."""
    op.add_column("files", sa.Column("status_details", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("files", "status_details")
