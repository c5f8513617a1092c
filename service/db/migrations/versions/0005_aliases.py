"""Names that clients may say instead of a base's, set by command; a job remembers the one it was created through."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Jobs that exist keep the names that they have: after their base."""
    op.create_table(
        "base_aliases",
        sa.Column("alias", sa.String(length=255), nullable=False),
        sa.Column("base", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("alias", name=op.f("pk_base_aliases")),
    )
    op.add_column("jobs", sa.Column("alias", sa.String(length=255), nullable=True))


def downgrade() -> None:
    """Models that are named after an alias keep their names; jobs that still train are named after their base."""
    op.drop_column("jobs", "alias")
    op.drop_table("base_aliases")
