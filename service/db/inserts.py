"""Inserts where a row with the same key may be there already, which is no error.

Uses no table of its own. A second writer waits for the first one's transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from service.db.connection import Transaction


async def add_if_new(tx: Transaction, table: Table, values: Mapping[str, Any]) -> bool:
    """Writes the row; False when one with the same unique values is there, which is now visible to this transaction."""
    if tx.connection.dialect.name == "postgresql":
        result = await tx.connection.execute(postgresql.insert(table).values(dict(values)).on_conflict_do_nothing())
    else:
        result = await tx.connection.execute(sqlite.insert(table).values(dict(values)).on_conflict_do_nothing())
    return result.rowcount == 1


async def add_or_replace(tx: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows; one whose primary key is there already gets the new values."""
    key = [column.name for column in table.primary_key]
    if tx.connection.dialect.name == "postgresql":
        new = postgresql.insert(table)
        await tx.connection.execute(
            new.on_conflict_do_update(index_elements=key, set_=_others(new.excluded, key)), [dict(row) for row in rows]
        )
    else:
        made = sqlite.insert(table)
        await tx.connection.execute(
            made.on_conflict_do_update(index_elements=key, set_=_others(made.excluded, key)),
            [dict(row) for row in rows],
        )


def _others(excluded: ReadOnlyColumnCollection[str, Any], key: Sequence[str]) -> dict[str, Any]:
    return {column.name: column for column in excluded if column.name not in key}
