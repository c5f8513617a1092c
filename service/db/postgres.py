"""PostgreSQL: a pool that outlives restarts of its server, and every wait is bounded.

Writes run in READ COMMITTED: what an operation reads before it writes, it reads with a row lock. Reads see one
snapshot. Uses no table. `service.db.connection` picks it for URLs that begin with `postgres`.
"""

from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

WRITE = "SELECT pg_current_xact_id()"  # a transaction with an id leaves a record when it commits
OPTIONS = {"host", "port", "ssl"}
CLIENT_GRACE_SECONDS = 2.0  # the server ends a slow command; the client does so only when the server is silent
RECYCLE_SECONDS = 1800
UNAVAILABLE_CLASSES = {
    "08": "connection broken",
    "28": "user or password refused",
    "40": "deadlock or serialization",
    "53": "out of connections, memory or disk",
    "57": "shutting down, starting up, cut off by an operator, or a command timed out",
    "58": "input or output failed",
}
UNAVAILABLE_STATES = {
    "25006": "a standby, which takes no writes",
    "25P03": "idle in a transaction for too long",
    "3D000": "no such database",
    "55P03": "a lock was not acquired in time",
}


@dataclass(frozen=True)
class PoolLimits:
    """How many connections one process holds, and how long it waits."""

    connections: int = 10
    connect_seconds: float = 5.0  # for a new connection, and for a free one of the pool
    command_seconds: float = 20.0
    lock_seconds: float = 10.0


def adopt(url: URL) -> URL:
    """The URL for the driver that we use, `sslmode` translated. Raises ValueError for options that it does not have."""
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    unknown = sorted(set(query) - OPTIONS)
    if unknown:
        known = ", ".join(sorted(OPTIONS | {"sslmode"}))
        raise ValueError(f"LUTHIER_DATABASE_URL has the option '{unknown[0]}': only {known} are known here.")
    return url.set(drivername="postgresql+asyncpg", query=query)


def create_engine(url: URL, limits: PoolLimits) -> AsyncEngine:
    """The pool; connects at its first use. A connection is tested before it is used again."""
    return create_async_engine(
        adopt(url),
        hide_parameters=True,
        isolation_level="READ COMMITTED",
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.connect_seconds,
        pool_pre_ping=True,
        pool_recycle=RECYCLE_SECONDS,
        connect_args={
            "timeout": limits.connect_seconds,
            "command_timeout": limits.command_seconds + CLIENT_GRACE_SECONDS,
            "server_settings": {
                "application_name": "luthier",
                "statement_timeout": _milliseconds(limits.command_seconds),
                "lock_timeout": _milliseconds(limits.lock_seconds),
                "idle_in_transaction_session_timeout": _milliseconds(limits.command_seconds + limits.lock_seconds),
                "timezone": "UTC",
            },
        },
    )


def options(*, writes: bool) -> dict[str, Any]:
    """The execution options of a transaction."""
    return {} if writes else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def is_unavailable(error: BaseException) -> bool:
    """True for a server that is unavailable, full or busy, as opposed to a bug of ours."""
    if isinstance(error, OSError):  # refused, cut, or timed out: the driver does not wrap it
        return True
    state = sqlstate(error)
    return state in UNAVAILABLE_STATES or state[:2] in UNAVAILABLE_CLASSES


def sqlstate(error: BaseException | None) -> str:
    """The five characters by which PostgreSQL names what went wrong, "" without any."""
    while error is not None:
        if isinstance(error, asyncpg.PostgresError):
            return error.sqlstate or ""
        error = error.__cause__
    return ""


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
