"""One connection to Redis per process, for what may be lost: the bell, shared rate limits, whose turn the chores are.

Nothing in Redis is the only copy. Every command is short, so that a hanging server is noticed within a second, and is
retried at once over a new connection, so that a restart of the server causes no error. The client's own type is used
here, in `service.queue.arq` and in `service.gateway.limits.redis`, and nowhere else.
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

from service.domain.errors import Unavailable
from service.domain.json import JsonObject

CONNECT_SECONDS = 0.5
RESPONSE_SECONDS = 1.0
CANCEL_SECONDS = 0.5
UNAVAILABLE: tuple[type[Exception], ...] = (RedisError, OSError, TimeoutError)  # what its client raises


class RedisConnection:
    """`redis://`, `rediss://` or `unix://`; connects at its first command. Raises ValueError for another URL."""

    def __init__(self, url: str) -> None:
        pool = ConnectionPool.from_url(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=RESPONSE_SECONDS,
            retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), 2),
            retry_on_error=[RedisConnectionError, RedisTimeoutError, OSError],  # OSError: refused while it restarts
        )
        self.client = ArqRedis(pool, job_serializer=encode, job_deserializer=decode)

    async def check(self) -> None:
        """Raises Unavailable unless the server responds."""
        try:
            await self.client.ping()
        except UNAVAILABLE as error:
            raise Unavailable(f"Redis is unavailable ({type(error).__name__}).") from error

    async def close(self) -> None:
        await self.client.aclose(close_connection_pool=True)


class RedisTurns:
    """`Turns` over all processes of an installation. Without Redis it is every process' turn."""

    def __init__(self, redis: RedisConnection) -> None:
        self._client = redis.client

    async def take(self, chore: str, seconds: float) -> bool:
        try:
            return bool(await self._client.set(f"luthier:{chore}", 1, nx=True, px=max(1, int(seconds * 1000))))
        except UNAVAILABLE:
            return True


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels until all are done: a command of redis-py 5.3 sometimes swallows a cancellation and continues."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)


def encode(message: JsonObject) -> bytes:
    """arq's messages as JSON: its own default would unpickle, and so run, what another client of Redis has written."""
    return json.dumps(message, default=str).encode()


def decode(message: bytes) -> JsonObject:
    """Raises ValueError for anything but a JSON object."""
    fields = json.loads(message)
    if not isinstance(fields, dict):
        raise ValueError("a message of the bell is not a JSON object")
    return fields
