"""Names of a project's that stand for a model and can be moved, and every change of one."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """No project has one yet."""
    op.create_table(
        "model_aliases",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=512), nullable=False),
        sa.Column("candidate", sa.String(length=512), nullable=True),
        sa.Column("candidate_weight", sa.Float(), nullable=True),
        sa.Column("previous_model", sa.String(length=512), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_model_aliases_project_id_projects")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_model_aliases")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_model_aliases_project_id_name")),
    )
    op.create_index(op.f("ix_model_aliases_name"), "model_aliases", ["name"])
    op.create_table(
        "model_alias_changes",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("alias", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("model", sa.String(length=512), nullable=False),
        sa.Column("candidate", sa.String(length=512), nullable=True),
        sa.Column("candidate_weight", sa.Float(), nullable=True),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("key_name", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_model_alias_changes_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_model_alias_changes")),
        sa.UniqueConstraint("id", name=op.f("uq_model_alias_changes_id")),
    )
    op.create_index(
        op.f("ix_model_alias_changes_project_id_alias_sequence"),
        "model_alias_changes",
        ["project_id", "alias", "sequence"],
    )


def downgrade() -> None:
    op.drop_table("model_alias_changes")
    op.drop_table("model_aliases")
