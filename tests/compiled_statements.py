"""SQL statements are compiled once for all tests of a process.

SQLAlchemy keeps what it has compiled for each engine, as a service does for as long as it runs. Every test has engines
of its own, so a sixth of the CPU seconds of the tests of the API went into compiling the same statements again.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, TextClause, event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import Compiled


class _Statements(dict[Any, Compiled]):
    """What `Engine._compiled_cache` holds, with the dialect's name in place of the engine's own dialect."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_of_all_engines(key), default)

    def __setitem__(self, key: Any, compiled: Compiled) -> None:
        if not isinstance(compiled.statement, TextClause):  # its columns are known from the first result: of one schema
            super().__setitem__(_of_all_engines(key), compiled)


def _of_all_engines(key: Any) -> Any:
    dialect, *statement = key
    return (dialect.name, *statement)


@pytest.fixture(scope="session", autouse=True)
def compiled_statements() -> Iterator[None]:
    """While it lasts, all engines share what they have compiled."""
    statements = _Statements()

    def share(connection: Connection) -> None:
        connection.engine._compiled_cache = statements

    event.listen(Engine, "engine_connect", share)
    yield
    event.remove(Engine, "engine_connect", share)
