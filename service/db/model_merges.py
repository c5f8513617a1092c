"""Rows of merges of models. Work on a merge is locked before its row (`service.db.work`)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields

from sqlalchemy import ColumnElement, Row, delete, insert, or_, select, update

from service.db.connection import Transaction
from service.db.tables import model_merges, models
from service.domain.model_merge import FINAL, ModelMerge, Status

_COLUMNS = [model_merges.c[field.name] for field in fields(ModelMerge)]
SETTLED_SECONDS = 60  # a download that has just begun, and a worker that lost its merge


def _merge(row: Row[tuple[object, ...]]) -> ModelMerge:
    return ModelMerge(**row._mapping)


async def add(tx: Transaction, merge: ModelMerge) -> None:
    """Writes a new merge; its model must have none."""
    values = {field.name: getattr(merge, field.name) for field in fields(ModelMerge)}
    await tx.connection.execute(insert(model_merges).values(values))


async def find(tx: Transaction, id: str, *, lock: bool = False) -> ModelMerge | None:
    """The merge. `lock`: it cannot change meanwhile."""
    return await _one(tx, model_merges.c.id == id, lock)


async def of_model(tx: Transaction, model: str, *, lock: bool = False) -> ModelMerge | None:
    """The merge of that model."""
    return await _one(tx, model_merges.c.model == model, lock)


async def _one(tx: Transaction, condition: ColumnElement[bool], lock: bool) -> ModelMerge | None:
    query = select(*_COLUMNS).where(condition)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _merge(row)


async def change(tx: Transaction, id: str, expected: Status, values: Mapping[str, object]) -> bool:
    """Sets `values` if the merge's status is `expected`; False when it was not."""
    matching = update(model_merges).where(model_merges.c.id == id, model_merges.c.status == expected)
    return (await tx.connection.execute(matching.values(dict(values)))).rowcount == 1


async def remove(tx: Transaction, ids: Sequence[str]) -> None:
    await tx.connection.execute(delete(model_merges).where(model_merges.c.id.in_(ids)))


async def expired(tx: Transaction, life_seconds: float, limit: int) -> list[str]:
    """Ids of merges that ended longer ago, or whose model is deleted."""
    rows, now = model_merges.c, int(time.time())
    dead = select(models.c.name).where(models.c.name == rows.model, models.c.deleted_at.is_not(None)).exists()
    ended = select(rows.id).where(rows.status.in_(FINAL), rows.finished_at < now - SETTLED_SECONDS)
    query = ended.where(or_(rows.finished_at < now - life_seconds, dead))
    return list((await tx.connection.execute(query.limit(limit))).scalars())


async def known(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the ids that are merges'."""
    return set((await tx.connection.execute(select(model_merges.c.id).where(model_merges.c.id.in_(ids)))).scalars())
