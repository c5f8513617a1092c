"""The SQL that a block sends, for tests that count it, or ask the database how it would find the rows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from service.installation.context import Context

EXPLAINED = re.compile(r"\s*(SELECT|UPDATE|DELETE|WITH)", re.IGNORECASE)


@contextmanager
def statements(ctx: Context) -> Iterator[list[str]]:
    """Each statement, as it is sent to the database of `ctx`."""
    sent: list[str] = []
    with _noting(ctx, lambda statement, parameters: sent.append(statement)):
        yield sent


@contextmanager
def queries(ctx: Context) -> Iterator[dict[str, Any]]:
    """Each statement that looks for rows, and the values of its last use."""
    sent: dict[str, Any] = {}

    def note(statement: str, parameters: Any) -> None:
        if EXPLAINED.match(statement):
            sent[statement] = parameters[0] if isinstance(parameters, list) else parameters

    with _noting(ctx, note):
        yield sent


async def plan(ctx: Context, statement: str, parameters: Any) -> list[str]:
    """The lines of the plan; PostgreSQL reads no table from its beginning to its end if there is any other way."""
    embedded = ctx.database.engine.dialect.name == "sqlite"
    async with ctx.database.engine.connect() as connection:
        if not embedded:
            await connection.exec_driver_sql("SET enable_seqscan = off")
        found = await connection.exec_driver_sql(
            f"{'EXPLAIN QUERY PLAN' if embedded else 'EXPLAIN'} {statement}", parameters
        )
        lines = [str(row[-1]) for row in found]
        await connection.rollback()
    return lines


@contextmanager
def _noting(ctx: Context, sees: Any) -> Iterator[None]:
    engine = ctx.database.engine.sync_engine

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *more: Any) -> None:
        sees(statement, parameters)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", note)
