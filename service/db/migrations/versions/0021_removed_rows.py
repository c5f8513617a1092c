"""Where removed rows of lists stood, so that a page behind one of them is still found."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Rows that were removed before are not known any more."""
    op.create_table(
        "removed_rows",
        sa.Column("listed", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("listed", "owner", "id", name=op.f("pk_removed_rows")),
    )
    op.create_index(op.f("ix_removed_rows_removed_at"), "removed_rows", ["removed_at"])


def downgrade() -> None:
    op.drop_table("removed_rows")
