"""Rows of bases: which weights, tokenizer and template a public base id stands for, from its first use on."""

import time
from collections.abc import Collection
from dataclasses import asdict, dataclass

from sqlalchemy import select, update

from service.db.connection import Transaction
from service.db.inserts import add_if_new
from service.db.tables import bases


@dataclass(frozen=True)
class BaseRecord:
    """What a trainer found when it loaded the base."""

    id: str
    source: str
    revision: str
    hashes: dict[str, str]


async def find(tx: Transaction, id: str) -> BaseRecord | None:
    columns = [bases.c.id, bases.c.source, bases.c.revision, bases.c.hashes]
    row = (await tx.connection.execute(select(*columns).where(bases.c.id == id))).one_or_none()
    return None if row is None else BaseRecord(**row._mapping)


async def add(tx: Transaction, record: BaseRecord) -> bool:
    """False when the base is known already."""
    return await add_if_new(tx, bases, {**asdict(record), "created_at": int(time.time())})


async def note_announcement(tx: Transaction, id: str, seconds: float) -> None:
    """How long the announcement of a model of the base took."""
    await tx.connection.execute(update(bases).where(bases.c.id == id).values(announce_seconds=seconds))


async def announce_seconds(tx: Transaction, ids: Collection[str]) -> dict[str, float]:
    """How long the last announcement took, by base; bases without one are left out."""
    query = select(bases.c.id, bases.c.announce_seconds).where(
        bases.c.id.in_(ids), bases.c.announce_seconds.is_not(None)
    )
    return {row.id: row.announce_seconds for row in await tx.connection.execute(query)}
