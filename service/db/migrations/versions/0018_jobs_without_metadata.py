"""An index of the jobs without metadata, which are listed by `metadata=null`."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
INDEX = "ix_jobs_without_metadata"


def upgrade() -> None:
    """Empty metadata becomes none, as it is stored from now on."""
    op.execute("UPDATE jobs SET metadata = NULL WHERE CAST(metadata AS TEXT) IN ('{}', 'null')")
    condition = sa.text("metadata IS NULL")
    op.create_index(INDEX, "jobs", ["project_id", "sequence"], sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    op.drop_index(INDEX, "jobs")
