"""Inserts where another writer may have been first: the second learns it from the result, not from an error.

Uses no table of its own. The first writer's row decides, also while its transaction is still open: the second one waits
for it.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from service.db.connection import Transaction


async def add_if_new(tx: Transaction, table: Table, values: Mapping[str, Any]) -> bool:
    """Writes the row; False when one with the same unique values is there, which is now visible to this transaction."""
    if tx.connection.dialect.name == "postgresql":
        result = await tx.connection.execute(postgresql.insert(table).values(dict(values)).on_conflict_do_nothing())
    else:
        result = await tx.connection.execute(sqlite.insert(table).values(dict(values)).on_conflict_do_nothing())
    return result.rowcount == 1
