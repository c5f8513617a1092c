"""Rows of bases: which weights, tokenizer and template a public base id stands for, from its first use on."""

import time
from dataclasses import asdict, dataclass

from sqlalchemy import select

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
