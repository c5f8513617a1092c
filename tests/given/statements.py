"""The SQL that a block sends, for tests that count it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from service.installation.context import Context


@contextmanager
def statements(ctx: Context) -> Iterator[list[str]]:
    """Each statement, as it is sent to the database of `ctx`."""
    sent: list[str] = []
    engine = ctx.database.engine.sync_engine

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
