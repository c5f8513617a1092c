"""The memory that a worker's trainers have, by base."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Null until a worker's next beat."""
    op.add_column("workers", sa.Column("memory", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "memory")
