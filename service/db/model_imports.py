"""Rows of imports of models. Work on an import is locked before its row (`service.db.work`)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Row, insert, select, update

from service.db import cursors
from service.db.connection import Transaction
from service.db.tables import model_imports, models
from service.domain.model_import import FINAL, ModelImport, Status

_COLUMNS = [model_imports.c[field.name] for field in fields(ModelImport)]
LISTED = cursors.Listed(model_imports, "project_id")
SETTLED_SECONDS = 60  # a worker that lost its import may still be storing something


def _import(row: Row[Any]) -> ModelImport:
    return ModelImport(**row._mapping)


async def add(tx: Transaction, imported: ModelImport) -> None:
    """Writes a new import; its id must be new."""
    values = {field.name: getattr(imported, field.name) for field in fields(ModelImport)}
    await tx.connection.execute(insert(model_imports).values(values))


async def find(tx: Transaction, project_id: str | None, id: str, *, lock: bool = False) -> ModelImport | None:
    """The import of that project; `None` as project for the workers. `lock`: it cannot change meanwhile."""
    query = select(*_COLUMNS).where(model_imports.c.id == id)
    if project_id is not None:
        query = query.where(model_imports.c.project_id == project_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _import(row)


async def page(tx: Transaction, project_id: str, after: str | None, limit: int) -> list[ModelImport]:
    """At most `limit` imports, newest first, older than `after`; an unknown `after` gives none."""
    rows = model_imports.c
    query = select(*_COLUMNS).where(rows.project_id == project_id).order_by(rows.sequence.desc()).limit(limit)
    if after is not None:
        query = query.where(rows.sequence < cursors.place(LISTED, project_id, after))
    return [_import(row) for row in await tx.connection.execute(query)]


async def change(tx: Transaction, id: str, expected: Status, values: Mapping[str, Any]) -> bool:
    """Sets `values` if the import's status is `expected`; False when it was not."""
    matching = update(model_imports).where(model_imports.c.id == id, model_imports.c.status == expected)
    return (await tx.connection.execute(matching.values(dict(values)))).rowcount == 1


async def unswept(tx: Transaction, limit: int) -> dict[str, str | None]:
    """Imports that have ended, whose private objects may be stored: id -> the name of an artifact that no model has."""
    rows = model_imports.c
    settled = int(time.time()) - SETTLED_SECONDS
    query = select(*_COLUMNS).where(rows.status.in_(FINAL), rows.swept_at.is_(None), rows.finished_at < settled)
    found = {}
    for imported in [_import(row) for row in await tx.connection.execute(query.limit(limit))]:
        name = None if imported.publication is None else str(imported.publication["name"])
        public = select(models.c.name).where(models.c.name == name)
        found[imported.id] = None if (await tx.connection.execute(public)).first() else name
    return found


async def mark_swept(tx: Transaction, id: str) -> None:
    values = {"swept_at": int(time.time())}
    await tx.connection.execute(update(model_imports).where(model_imports.c.id == id).values(values))


async def known(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the ids that are imports whose objects are not swept yet."""
    query = select(model_imports.c.id).where(model_imports.c.id.in_(ids), model_imports.c.swept_at.is_(None))
    return set((await tx.connection.execute(query)).scalars())


async def active(tx: Transaction, id: str) -> bool:
    """Whether there is such an import, and it has not ended."""
    query = select(model_imports.c.id).where(model_imports.c.id == id, model_imports.c.status.not_in(FINAL))
    return (await tx.connection.execute(query)).one_or_none() is not None


async def remove_beyond(tx: Transaction, project_id: str, kept: int) -> None:
    """Forgets the project's swept imports that failed and are older than its newest `kept`."""
    rows = model_imports.c
    newest = select(rows.sequence).where(rows.project_id == project_id).order_by(rows.sequence.desc())
    oldest_kept = newest.offset(kept).limit(1).scalar_subquery()
    failed = (rows.project_id == project_id, rows.status == "failed", rows.swept_at.is_not(None))
    await cursors.remove(tx, LISTED, *failed, rows.sequence <= oldest_kept)
