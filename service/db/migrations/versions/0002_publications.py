"""A finished training whose artifact is stored, and whose name is public only once an engine agrees with it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("publication", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "publication")
