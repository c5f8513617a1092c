"""The bell on Redis, with arq: a ring is sent to every listening process.

    put    -> Redis' list of listeners -> one message into each listener's own queue
    serve  <- arq's worker on the own queue, whose messages only say "look"; and a check at every sweep in any case

All listeners receive each ring, because only the listener can decide whether it concerns it: a free slot, room to check
a file, a base that it holds, a job of its own to pause. With one queue for all, a busy worker could consume a ring that
another needed.

arq carries short messages only: its handler returns at once, so that no slot, retry, timeout or in-progress key of
arq's ever belongs to a job. Rings that Redis loses are found by the sweep; while Redis is unavailable, `put` does not
fail and `serve` does not end. Uses no jobs and no database.
"""

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from arq.worker import Worker, func

from service.domain import ids
from service.queue.base import Handler
from service.queue.embedded import EmbeddedQueue
from service.queue.redis import UNAVAILABLE, RedisConnection, end

log = structlog.get_logger()
LISTENERS = "luthier:bell:listeners"  # sorted set: a listener's queue -> when it was last seen, by Redis' clock
PUT_SECONDS = 0.5
RINGING_LIMIT = 100  # at a time: with Redis frozen, each waits for the timeout of its connection
PRESENT_SECONDS = 1.0  # between two heartbeats: for so long a listener may be unknown after Redis lost its keys
GONE_SECONDS = 15.0
STOP_SECONDS = 2.0
MESSAGE_SECONDS = 30  # later, the listener has checked by itself
HANDLER_SECONDS = 5  # an event needs much less; arq's in-progress keys live for 10 more
LISTENERS_LIMIT = 1000


class ArqQueue:
    """A `Queue` for several machines. A ring in the same process has effect at once, even without Redis."""

    server = "Redis"

    def __init__(self, redis: RedisConnection, poll_seconds: float, sweep_seconds: float) -> None:
        self._connection = redis
        self._redis = redis.client
        self._poll_seconds = poll_seconds
        self._own = EmbeddedQueue(sweep_seconds)
        self._queue = f"luthier:bell:{ids.worker_id()}"
        self._ringing: set[asyncio.Task[None]] = set()

    async def put(self, id: str) -> None:
        """Returns after PUT_SECONDS at the latest. A ring that takes longer may still be heard: a command that is
        cancelled would leave its connection unusable.
        """
        await self._own.put(id)
        if len(self._ringing) >= RINGING_LIMIT:
            log.warning("bell.not_rung", job_id=id, reason="others are waiting")
            return
        ringing = asyncio.create_task(self._ring(id))
        self._ringing.add(ringing)
        ringing.add_done_callback(self._ringing.discard)
        done, _ = await asyncio.wait({ringing}, timeout=PUT_SECONDS)
        if not done:
            log.warning("bell.late", job_id=id)

    async def serve(self, handler: Handler) -> None:
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(self._listen(stopping)), asyncio.create_task(self._send_heartbeats(stopping))]
        try:
            await self._own.serve(handler)
        finally:
            stopping.set()
            await asyncio.wait(tasks, timeout=STOP_SECONDS)  # orderly first: a cancelled connection is not closed
            await end(*tasks)

    async def check(self) -> None:
        await self._connection.check()

    async def close(self) -> None:
        if self._ringing:
            await asyncio.wait(self._ringing, timeout=STOP_SECONDS)
            await end(*self._ringing)
        await self._connection.close()

    async def _ring(self, id: str) -> None:
        try:
            for queue in await self._others():
                await self._redis.enqueue_job("look", id, _queue_name=queue, _expires=MESSAGE_SECONDS)
                await self._redis.expire(queue, MESSAGE_SECONDS)  # else a dead listener's queue would stay
        except UNAVAILABLE as error:
            log.warning("bell.not_rung", job_id=id, reason=type(error).__name__)

    async def _others(self) -> list[str]:
        """The queues of the living listeners, without this process' own."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zrange(LISTENERS, 0, LISTENERS_LIMIT - 1, desc=True, withscores=True)
            (now, _), listeners = await pipe.execute()
        living = [queue.decode() for queue, seen in listeners if seen > now - GONE_SECONDS]
        return [queue for queue in living if queue != self._queue]

    async def _send_heartbeats(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                (now, _) = await self._redis.time()
                async with self._redis.pipeline(transaction=False) as pipe:
                    pipe.zadd(LISTENERS, {self._queue: now})
                    pipe.zremrangebyscore(LISTENERS, "-inf", now - GONE_SECONDS)
                    await pipe.execute()
            except UNAVAILABLE:
                pass  # `_listen` logs it
            await _wait(stopping, PRESENT_SECONDS)
        with suppress(*UNAVAILABLE):
            await self._redis.zrem(LISTENERS, self._queue)

    async def _listen(self, stopping: asyncio.Event) -> None:
        """arq's worker ends at its first error; a new one replaces it."""
        while not stopping.is_set():
            worker = self._worker()
            running = asyncio.create_task(worker.async_run())
            stopped = asyncio.create_task(stopping.wait())
            try:
                await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
                worker.burst, worker.max_burst_jobs = True, 0  # it returns before it reads the queue again
                await running
            except UNAVAILABLE as error:
                log.warning("bell.unavailable", reason=type(error).__name__)
            except Exception:
                log.exception("bell.broken")  # the sweep still checks
            finally:
                await end(running, stopped, *worker.tasks.values())
            await _wait(stopping, PRESENT_SECONDS)
            await self._own.put("")  # rings meanwhile are lost; without Redis, this sets the pace of checks

    def _worker(self) -> Worker:
        return Worker(
            [func(self._look, name="look", timeout=HANDLER_SECONDS, keep_result=0, max_tries=1)],
            queue_name=self._queue,
            redis_pool=self._redis,
            handle_signals=False,
            poll_delay=self._poll_seconds,
            job_timeout=HANDLER_SECONDS,
            keep_result=0,
            max_tries=1,
            retry_jobs=False,
            allow_abort_jobs=False,
            job_serializer=self._redis.job_serializer,
            job_deserializer=self._redis.job_deserializer,
        )

    async def _look(self, ctx: dict[Any, Any], *ids: Any, **_: Any) -> None:
        for id in ids:
            await self._own.put(id)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
