"""Rows of checkpoint permissions: which other projects may call a tuned model."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Row, delete, insert, select

from service.db.connection import Transaction
from service.db.tables import checkpoint_permissions
from service.domain.model import Permission

_COLUMNS = [checkpoint_permissions.c[field.name] for field in fields(Permission)]


def _permission(row: Row[Any]) -> Permission:
    return Permission(**row._mapping)


async def add(tx: Transaction, permission: Permission) -> None:
    """Writes a new permission; a project has one per model."""
    await tx.connection.execute(insert(checkpoint_permissions).values(asdict(permission)))


async def of_projects(tx: Transaction, model_name: str, project_ids: Sequence[str]) -> dict[str, Permission]:
    """What these projects have for the model already, by project."""
    query = select(*_COLUMNS).where(
        checkpoint_permissions.c.model_name == model_name, checkpoint_permissions.c.project_id.in_(project_ids)
    )
    return {row.project_id: _permission(row) for row in await tx.connection.execute(query)}


async def page(
    tx: Transaction, model_name: str, project_id: str | None, after: str | None, limit: int, *, ascending: bool
) -> list[Permission]:
    """At most `limit` permissions of the model beyond `after`; an unknown `after` gives none."""
    rows = checkpoint_permissions.c
    query = select(*_COLUMNS).where(rows.model_name == model_name)
    if project_id is not None:
        query = query.where(rows.project_id == project_id)
    if after is not None:
        cursor = select(rows.sequence).where(rows.id == after, rows.model_name == model_name).scalar_subquery()
        query = query.where(rows.sequence > cursor if ascending else rows.sequence < cursor)
    order = rows.sequence if ascending else rows.sequence.desc()
    return [_permission(row) for row in await tx.connection.execute(query.order_by(order).limit(limit))]


async def remove(tx: Transaction, model_name: str, id: str) -> bool:
    """False when the model has no such permission."""
    rows = checkpoint_permissions.c
    gone = await tx.connection.execute(
        delete(checkpoint_permissions).where(rows.id == id, rows.model_name == model_name)
    )
    return gone.rowcount == 1
