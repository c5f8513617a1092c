"""How long announcing a model of a base takes: part of a running job's `estimated_finish`."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Unknown until the next model of each base is announced."""
    op.add_column("bases", sa.Column("announce_seconds", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("bases", "announce_seconds")
