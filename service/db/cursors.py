"""Cursors of lists: where the row stands that `after` names, or stood before it was removed.

A page begins behind that place, so a list that is deleted from while it is read is read to its end. `remove` is how a
row leaves a table that is listed; the row's place stays for `KEPT_SECONDS`.
"""

import time
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Table, delete, func, select

from service.db.connection import Transaction
from service.db.inserts import add_or_replace
from service.db.tables import removed_rows

KEPT_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Listed:
    """A table with lists in the order of `sequence`: `id` is what `after` names, `owner` is whose list a row is in."""

    table: Table
    owner: str
    id: str = "id"

    @property
    def columns(self) -> tuple[Column[str], Column[str], Column[int]]:
        """Of owner, id and sequence."""
        return self.table.c[self.owner], self.table.c[self.id], self.table.c.sequence


def place(listed: Listed, owner: str, after: str) -> ColumnElement[int]:
    """The sequence of the owner's row, living or removed; null for one that never was, behind which nothing stands.

    Of a name that was given again it is the living row's.
    """
    owner_column, id_column, sequence = listed.columns
    living = select(sequence).where(id_column == after, owner_column == owner)
    gone = removed_rows.c
    removed = select(gone.sequence).where(gone.listed == listed.table.name, gone.owner == owner, gone.id == after)
    return func.coalesce(living.scalar_subquery(), removed.scalar_subquery())


async def remove(tx: Transaction, listed: Listed, *conditions: ColumnElement[bool]) -> int:
    """Removes the rows that meet all conditions, and notes their places; how many there were."""
    found = await tx.connection.execute(delete(listed.table).where(*conditions).returning(*listed.columns))
    now = int(time.time())
    rows = [
        {"listed": listed.table.name, "owner": owner, "id": id, "sequence": sequence, "removed_at": now}
        for owner, id, sequence in found
    ]
    if rows:
        await add_or_replace(tx, removed_rows, rows)
    return len(rows)


async def forget(tx: Transaction) -> None:
    """Forgets the places of rows that were removed more than `KEPT_SECONDS` ago."""
    await tx.connection.execute(delete(removed_rows).where(removed_rows.c.removed_at < _oldest_kept()))


async def any_to_forget(tx: Transaction) -> bool:
    """Whether `forget` would find one."""
    query = select(removed_rows.c.id).where(removed_rows.c.removed_at < _oldest_kept()).limit(1)
    return (await tx.connection.execute(query)).first() is not None


def _oldest_kept() -> int:
    return int(time.time()) - KEPT_SECONDS
