"""The database: one engine, transactions with effects after their commit, one error for whatever makes it unavailable.

Uses no table. The URL alone decides between `service.db.sqlite` and `service.db.postgres`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from sqlalchemy import URL, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.db import postgres, sqlite
from service.db.postgres import PoolLimits
from service.domain.errors import DatabaseDamaged, InvalidRequest, Unavailable

__all__ = ["Database", "PoolLimits", "Transaction"]

UNAVAILABLE = "The database is not available right now; please try again."
NOT_TEXT = {"22021", "22P05"}  # U+0000, which PostgreSQL's text cannot hold
log = structlog.get_logger()


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

    def __init__(self, url: str | URL, limits: PoolLimits | None = None) -> None:
        """Connects to nothing yet. Raises ValueError for a URL that cannot work."""
        self.url = _parse(url) if isinstance(url, str) else url
        self._embedded = self.url.get_backend_name() == "sqlite"
        self._file = sqlite.DatabaseFile(self.url) if self._embedded and self.url.database else None
        self.engine = self._create_engine(limits or PoolLimits())
        self._is_unavailable = sqlite.is_unavailable if self._embedded else postgres.is_unavailable
        event.listen(self.engine.sync_engine, "handle_error", self._translate)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One BEGIN and COMMIT; rolls back on any exception. Raises Unavailable when the database is down or full.

        Unavailable out of the COMMIT itself leaves open whether it was committed: only reading the rows can show it.
        """
        async with self._begin(writes=True) as connection:
            transaction = Transaction(connection)
            yield transaction
        await transaction.run_effects()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """A read-only view of one moment."""
        async with self._begin(writes=False) as connection:
            yield Transaction(connection)

    async def check(self) -> None:
        """Raises Unavailable unless the database responds now."""
        async with self.reading() as tx:
            await tx.connection.exec_driver_sql("SELECT 1")

    async def check_writes(self) -> None:
        """Raises Unavailable unless the database commits a transaction now; nothing that it holds is changed."""
        async with self.transaction() as tx:
            await tx.connection.exec_driver_sql(sqlite.WRITE if self._embedded else postgres.WRITE)

    def last_commit(self) -> int | None:
        """A mark that is another one after every commit, whoever commits; None where only asking would show it."""
        return self._file.last_commit() if self._file is not None else None

    async def close(self) -> None:
        if self._file is not None:
            self._file.close()
        await self.engine.dispose()

    @asynccontextmanager
    async def _begin(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        options = sqlite.options(writes=writes) if self._embedded else postgres.options(writes=writes)
        connection = await self._connect()
        try:
            await connection.execution_options(**options)
            async with connection.begin():
                yield connection
        finally:
            await connection.close()

    async def _connect(self) -> AsyncConnection:
        """A connection of the pool. Errors that are not a driver's are raised here: refused, silent, none free."""
        if self._file is not None:
            self._file.check()
        try:
            connection = await self.engine.connect()
        except (OSError, PoolTimeoutError) as error:
            raise _unavailable(error) from error
        if self._file is not None:
            self._file.opened()
        return connection

    def _translate(self, context: ExceptionContext) -> BaseException | None:
        """SQLAlchemy's hook at every failed connect, BEGIN, command and COMMIT: what to raise instead, or None."""
        error = context.original_exception
        if not isinstance(error, Exception):
            return None  # a cancellation
        if isinstance(error, OSError):
            context.is_disconnect = True  # a late result must not be taken for the next command's
        unavailable = context.is_disconnect or self._is_unavailable(error)
        if context.is_pre_ping:
            context.is_disconnect = unavailable  # the pool makes a new connection instead
            return None
        if self._embedded and sqlite.is_damaged(error):
            log.error("database.damaged", path=self.url.database)
            return DatabaseDamaged()
        if unavailable:
            return _unavailable(error)
        if postgres.sqlstate(error) in NOT_TEXT:
            return InvalidRequest("The request has the character U+0000 in a text, which cannot be stored.")
        return None

    def _create_engine(self, limits: PoolLimits) -> AsyncEngine:
        return sqlite.create_engine(self.url) if self._embedded else postgres.create_engine(self.url, limits)


def _parse(url: str) -> URL:
    """The URL, without its password in any error."""
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1) if url.startswith("postgres://") else url)
    except ArgumentError as error:
        raise ValueError("LUTHIER_DATABASE_URL is not a URL such as postgresql://user:password@host/name") from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ValueError(f"LUTHIER_DATABASE_URL begins with '{parsed.drivername}': only postgresql and sqlite can.")
    return parsed


def _unavailable(error: BaseException) -> Unavailable:
    """Logs why, without the driver's words: they may quote what a user sent."""
    cause = type(error.__cause__ or error).__name__
    log.warning("database.unavailable", error=cause, sqlstate=postgres.sqlstate(error))
    return Unavailable(UNAVAILABLE)
