"""One client of Redis per process, for what may be lost: the bell, shared rate limits, whose turn the chores are.

Nothing in Redis is a truth. Every command is short, so that a server that hangs is noticed within a second, and is
tried again at once over a fresh connection, so that a restart of the server costs nobody an error. Knows no key.
"""

import asyncio
import json
from typing import Any

from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.domain.json import JsonObject

CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 1.0
CANCEL_SECONDS = 0.5
AWAY: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)  # whoever speaks to Redis expects these


def create_redis(url: str) -> ArqRedis:
    """The client of `redis://`, `rediss://` or `unix://`; connects at its first command. Raises ValueError."""
    pool = ConnectionPool.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), 2),
        retry_on_error=[RedisConnectionError, RedisTimeoutError, OSError],  # OSError: refused while it restarts
    )
    return ArqRedis(pool, job_serializer=encode, job_deserializer=decode)


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels until all are done: a command of redis-py 5.3 now and then swallows a cancellation and goes on."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)


def encode(message: JsonObject) -> bytes:
    """arq's messages as JSON: its own default would run what another client of Redis has written there."""
    return json.dumps(message, default=str).encode()


def decode(message: bytes) -> JsonObject:
    """Raises ValueError for anything but a JSON object."""
    fields = json.loads(message)
    if not isinstance(fields, dict):
        raise ValueError("a message of the bell is not a JSON object")
    return fields
