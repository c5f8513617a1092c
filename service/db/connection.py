"""The database: one engine, transactions with effects after their commit, and the database's own clock.

Knows no table. SQLite runs in WAL mode with full fsync and takes its write lock at BEGIN, so that two writers queue
instead of failing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Float, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.domain.errors import Unavailable

BUSY_TIMEOUT_SECONDS = 30


class database_now(FunctionElement[float]):
    """Unix seconds with fractions, by the database's clock: leases must not depend on a worker's."""

    type = Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgres_now(element: database_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())"


class Transaction:
    """An open transaction: run SQL on `connection`; effects outside the database wait for the commit."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection
        self._effects: list[Callable[[], Awaitable[None]]] = []

    def after_commit(self, effect: Callable[[], Awaitable[None]]) -> None:
        """Runs `effect` once the commit is safe; it may run twice over a crash, or never."""
        self._effects.append(effect)

    async def run_effects(self) -> None:
        for effect in self._effects:
            await effect()


class Database:
    """One pool of connections. `transaction()` writes, `reading()` sees one consistent state."""

    def __init__(self, url: str) -> None:
        self.engine = _create_engine(url)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One BEGIN and COMMIT; rolls back on any exception. Raises Unavailable when the database is away or full."""
        async with self._begin(writes=True) as connection:
            transaction = Transaction(connection)
            yield transaction
        await transaction.run_effects()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """A read-only view of one moment."""
        async with self._begin(writes=False) as connection:
            yield Transaction(connection)

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def _begin(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        try:
            async with self.engine.connect() as connection:
                await connection.execution_options(luthier_writes=writes)
                async with connection.begin():
                    yield connection
        except DBAPIError as error:
            if error.connection_invalidated or _passes_by(error):
                raise Unavailable("The database is not available right now; please try again.") from error
            raise


def _passes_by(error: DBAPIError) -> bool:
    """True for a busy, full or unreachable database, as opposed to a mistake of ours."""
    text = str(error.orig).lower()
    return any(sign in text for sign in ("database is locked", "disk is full", "disk i/o", "unable to open database"))


def _create_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # BEGIN is ours, below
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("luthier_writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")
