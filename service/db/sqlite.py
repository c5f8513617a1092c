"""The embedded database: WAL mode with full fsync, and the write lock taken at BEGIN, so that writers queue.

Uses no table. `service.db.connection` picks it for URLs that begin with `sqlite`.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import URL, Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_fixed

from service.domain.errors import Unavailable

log = structlog.get_logger()
BUSY_TIMEOUT_SECONDS = 30
SWITCH_SECONDS = 5
WRITE = "PRAGMA user_version = 0"  # writes a page, with the number that is there already
DAMAGED = ("file is not a database", "database disk image is malformed", "malformed database schema")
SIGNS = ("database is locked", "disk is full", "disk i/o", "unable to open database")


class DatabaseFile:
    """The file that the connections of one process have opened.

    An open connection reads and writes a file that was moved or deleted as before, and what it writes is lost; a new
    connection would begin with an empty file in its place. Both are refused until the file is back.
    """

    def __init__(self, url: URL) -> None:
        self._path = Path(url.database or "")
        self._identity: tuple[int, int] | None = None
        self._watch: sqlite3.Connection | None = None

    def check(self) -> None:
        """Raises Unavailable unless the path still leads to the file that was opened first."""
        if self._identity is None or self._now() == self._identity:
            return
        log.error("database.file_missing", path=str(self._path))
        raise Unavailable("The database file was moved or replaced; the service works again when it is back.")

    def opened(self) -> None:
        """Remembers the file, which exists now."""
        if self._identity is None:
            self._identity = self._now()

    def last_commit(self) -> int | None:
        """A number that every commit of any connection changes; None where there is none, such as before the first.

        `PRAGMA data_version` (https://www.sqlite.org/pragma.html#pragma_data_version) on a connection of its own, which
        takes some microseconds. Nothing else may open the files of the database: closing one of them would end the
        locks that SQLite holds on it in this process.
        """
        if self._identity is None or self._now() != self._identity:
            return None
        if self._watch is None:
            self._watch = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0.0)
        try:
            (version,) = self._watch.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:  # busy for a moment, or broken: the database itself is asked then
            return None
        return int(version)

    def close(self) -> None:
        """Ends the connection that `last_commit` uses."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _now(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def create_engine(url: URL) -> AsyncEngine:
    """The engine of one file."""
    engine = create_async_engine(url, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def options(*, writes: bool) -> dict[str, Any]:
    """The execution options of a transaction: `_begin` reads them."""
    return {"luthier_writes": writes}


def is_unavailable(error: BaseException) -> bool:
    """True for a busy, full or unreachable database, as opposed to a bug of ours."""
    return any(sign in str(error).lower() for sign in SIGNS)


def is_damaged(error: BaseException) -> bool:
    """True where the file is no database of SQLite, or only parts of one."""
    return any(sign in str(error).lower() for sign in DAMAGED)


def _prepare(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # BEGIN is ours, below
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}")
    _switch(cursor.execute, "PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _switch(execute: Callable[[str], object], pragma: str) -> None:
    """Retries while another connection does the same to a new file: SQLite does not wait for that lock."""
    locked = retry_if_exception_message(match="database is locked")
    Retrying(retry=locked, wait=wait_fixed(0.02), stop=stop_after_delay(SWITCH_SECONDS), reraise=True)(execute, pragma)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("luthier_writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN DEFERRED")
