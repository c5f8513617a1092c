"""An index by which jobs are counted by status and base, instead of one of the status alone."""

from alembic import op

revision = "0020"
down_revision = "0019"
BEFORE, NOW = "ix_jobs_status_sequence", "ix_jobs_status_base_sequence"


def upgrade() -> None:
    op.create_index(NOW, "jobs", ["status", "base", "sequence"])
    op.drop_index(BEFORE, "jobs")


def downgrade() -> None:
    op.create_index(BEFORE, "jobs", ["status", "sequence"])
    op.drop_index(NOW, "jobs")
