"""Rows of tokenised files, by content. A row is removed before its object, and a new row has a new object.

Whoever takes a row for a job locks it, sets `used_at` and names its object in the job, in one transaction. So a sweep
sees the job, or waits for the row and then sees that it was used just now.
"""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Row, Select, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.db.clock import database_now
from service.db.connection import Transaction
from service.db.tables import checks, datasets, jobs
from service.domain.dataset import StoredDataset
from service.domain.job import ACTIVE
from service.domain.storage_keys import dataset_key

UNUSED_SECONDS = 24 * 3600  # how long rows stay for the next job of the same content
_COLUMNS = [datasets.c[field.name] for field in fields(StoredDataset)]


def _dataset(row: Row[Any]) -> StoredDataset:
    return StoredDataset(**row._mapping)


async def find(tx: Transaction, object_key: str) -> StoredDataset | None:
    row = (await tx.connection.execute(select(*_COLUMNS).where(datasets.c.object_key == object_key))).one_or_none()
    return None if row is None else _dataset(row)


async def use(tx: Transaction, key: str) -> StoredDataset | None:
    """The rows of that content, locked and marked as used now."""
    used = update(datasets).where(datasets.c.key == key).values(used_at=database_now()).returning(*_COLUMNS)
    row = (await tx.connection.execute(used)).one_or_none()
    return None if row is None else _dataset(row)


async def add_or_use(tx: Transaction, stored: StoredDataset) -> StoredDataset:
    """Writes the row; where another has its key, that one is used and returned. The first writer's row decides."""
    values = {**asdict(stored), "used_at": database_now()}
    keys, used = [datasets.c.key], {"used_at": database_now()}
    if tx.connection.dialect.name == "postgresql":
        row = postgresql.insert(datasets).values(values).on_conflict_do_update(index_elements=keys, set_=used)
        return _dataset((await tx.connection.execute(row.returning(*_COLUMNS))).one())
    embedded = sqlite.insert(datasets).values(values).on_conflict_do_update(index_elements=keys, set_=used)
    return _dataset((await tx.connection.execute(embedded.returning(*_COLUMNS))).one())


async def keep(tx: Transaction, object_key: str) -> bool:
    """Marks the rows at this object as used now, locked; False where they are gone."""
    used = update(datasets).where(datasets.c.object_key == object_key).values(used_at=database_now())
    return (await tx.connection.execute(used)).rowcount == 1


async def describe(tx: Transaction, object_key: str, version: int) -> None:
    """What this version of a check finds out is stored beside the object."""
    of_object = update(datasets).where(datasets.c.object_key == object_key)
    await tx.connection.execute(of_object.values(described=version))


async def remove(tx: Transaction, object_key: str) -> None:
    """The object is missing or damaged; another that has taken its place in the meantime stays."""
    await tx.connection.execute(delete(datasets).where(datasets.c.object_key == object_key))


async def remove_unused(tx: Transaction, limit: int) -> list[str]:
    """Removes at most `limit` rows that nobody has used for a while and neither an active job nor a check names.

    Returns their objects.
    """
    found = await tx.connection.execute(_unused().limit(limit).with_for_update(skip_locked=True))
    object_keys = list(found.scalars())
    await tx.connection.execute(delete(datasets).where(datasets.c.object_key.in_(object_keys)))
    return object_keys


async def any_unused(tx: Transaction) -> bool:
    """Whether `remove_unused` would find one."""
    return (await tx.connection.execute(_unused().limit(1))).first() is not None


def _unused() -> Select[Any]:
    named = select(jobs.c.id).where(
        jobs.c.status.in_(ACTIVE),
        or_(jobs.c.training_data == datasets.c.object_key, jobs.c.validation_data == datasets.c.object_key),
    )
    checked = select(checks.c.id).where(
        or_(checks.c.training_data == datasets.c.object_key, checks.c.validation_data == datasets.c.object_key)
    )
    return select(datasets.c.object_key).where(
        datasets.c.used_at < database_now() - UNUSED_SECONDS, ~named.exists(), ~checked.exists()
    )


async def known(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the ids whose object a row has, an active job or a check: its row may have been removed as damaged."""
    id_of = {dataset_key(id): id for id in ids}
    shared = select(datasets.c.object_key).where(datasets.c.object_key.in_(id_of))
    found = set((await tx.connection.execute(shared)).scalars())
    for column in (jobs.c.training_data, jobs.c.validation_data):
        named = select(column).where(jobs.c.status.in_(ACTIVE), column.in_(id_of))
        found |= set((await tx.connection.execute(named)).scalars())
    for column in (checks.c.training_data, checks.c.validation_data):
        found |= set((await tx.connection.execute(select(column).where(column.in_(id_of)))).scalars())
    return {id_of[object_key] for object_key in found}
