"""Rows of aliases: names that clients may say instead of a base's id. Those of the catalogue's file are not here."""

import time
from dataclasses import dataclass

from sqlalchemy import delete, select, update

from service.db.connection import Transaction
from service.db.inserts import add_if_new
from service.db.tables import base_aliases


@dataclass(frozen=True)
class Alias:
    """A name, and the id of the base that it stands for, which the catalogue may no longer have."""

    alias: str
    base: str


_COLUMNS = [base_aliases.c.alias, base_aliases.c.base]


async def put(tx: Transaction, new: Alias) -> None:
    """Writes the alias, or lets it stand for another base."""
    values = {"alias": new.alias, "base": new.base, "created_at": int(time.time())}
    if not await add_if_new(tx, base_aliases, values):
        changed = update(base_aliases).where(base_aliases.c.alias == new.alias).values(base=new.base)
        await tx.connection.execute(changed)


async def find(tx: Transaction, alias: str) -> Alias | None:
    row = (await tx.connection.execute(select(*_COLUMNS).where(base_aliases.c.alias == alias))).one_or_none()
    return None if row is None else Alias(**row._mapping)


async def every(tx: Transaction) -> list[Alias]:
    """All of them, by name."""
    return [Alias(**row._mapping) for row in await tx.connection.execute(select(*_COLUMNS).order_by("alias"))]


async def remove(tx: Transaction, alias: str) -> bool:
    """False when there is none of that name."""
    return (await tx.connection.execute(delete(base_aliases).where(base_aliases.c.alias == alias))).rowcount == 1
