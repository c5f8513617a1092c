"""What the bell on Redis must do beyond the contract: reach every process, lose nothing for long, leave no litter."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from arq.connections import ArqRedis

from service.queue import Queue, create_queue
from service.queue.arq import LISTENERS, MESSAGE_SECONDS, RINGING_LIMIT
from service.queue.redis import RedisConnection
from tests.servers.valkey import Valkey

pytestmark = pytest.mark.slow

WAIT_SECONDS = 20.0
NEVER_SECONDS = 3600.0
QueueOf = Callable[..., Queue]


@pytest.fixture
async def queue_of(own_valkey: Valkey) -> AsyncIterator[QueueOf]:
    """Makes bells as separate processes have them: each with a client of its own."""
    queues: list[Queue] = []

    def make(sweep_seconds: float = NEVER_SECONDS) -> Queue:
        redis = RedisConnection(own_valkey.url)
        queues.append(create_queue(redis, poll_seconds=0.02, sweep_seconds=sweep_seconds))
        return queues[-1]

    yield make
    for queue in queues:
        await queue.close()


@pytest.fixture
async def redis(own_valkey: Valkey) -> AsyncIterator[ArqRedis]:
    """Looks into the server."""
    connection = RedisConnection(own_valkey.url)
    yield connection.client
    await connection.close()


class Listener:
    """A process that listens: how often it has looked, and whether it is busy with a look."""

    def __init__(self) -> None:
        self.looks = 0
        self.free = asyncio.Event()
        self.free.set()

    async def look(self) -> None:
        self.looks += 1
        await self.free.wait()

    async def next_look(self, after: int) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while self.looks <= after:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(*queues: Queue) -> AsyncIterator[list[Listener]]:
    """Serves each of the queues; every one has looked once and is known to the others when the block begins."""
    listeners = [Listener() for _ in queues]
    tasks = [asyncio.create_task(queue.serve(one.look)) for queue, one in zip(queues, listeners, strict=True)]
    try:
        yield listeners
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def rung(queue: Queue, *listeners: Listener) -> None:
    """Rings until everybody has looked once more: who has just come (back) is not known at once."""
    before = [one.looks for one in listeners]
    async with asyncio.timeout(WAIT_SECONDS):
        while any(one.looks <= old for one, old in zip(listeners, before, strict=True)):
            await queue.put("ftjob-x")
            await asyncio.sleep(0.1)


async def test_one_ring_reaches_everybody_who_listens(queue_of: QueueOf) -> None:
    api = queue_of()
    async with listening(queue_of(), queue_of(), queue_of()) as listeners:
        await rung(api, *listeners)
        await asyncio.sleep(0.3)  # rings that are on their way
        before = [one.looks for one in listeners]
        await api.put("ftjob-y")
        for one, looks in zip(listeners, before, strict=True):
            await one.next_look(looks)


async def test_a_busy_listener_keeps_no_ring_from_a_free_one(queue_of: QueueOf) -> None:
    api = queue_of()
    async with listening(queue_of(), queue_of()) as (busy, free):
        await rung(api, busy, free)
        await asyncio.sleep(0.3)
        busy.free.clear()
        looks = free.looks
        for _ in range(3):
            await api.put("ftjob-x")
            await free.next_look(looks)
            looks = free.looks
        before = busy.looks
        busy.free.set()
        await busy.next_look(before - 1)  # it looks once more for all that rang meanwhile


async def test_what_redis_forgets_before_it_was_heard_is_found_by_the_sweep(
    queue_of: QueueOf, own_valkey: Valkey
) -> None:
    api = queue_of()
    async with listening(queue_of(sweep_seconds=0.5)) as (worker,):
        await rung(api, worker)
        worker.free.clear()
        await api.put("ftjob-x")
        own_valkey.flush()
        before = worker.looks
        worker.free.set()
        await worker.next_look(before)


async def test_rings_are_heard_again_after_a_flush(queue_of: QueueOf, own_valkey: Valkey) -> None:
    api = queue_of()
    async with listening(queue_of(), queue_of()) as listeners:
        await rung(api, *listeners)
        own_valkey.flush()
        await rung(api, *listeners)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_restart_of_redis_ends_no_listener(queue_of: QueueOf, own_valkey: Valkey, end: str) -> None:
    api = queue_of()
    async with listening(queue_of(), queue_of()) as listeners:
        await rung(api, *listeners)
        await asyncio.to_thread(getattr(own_valkey, end))
        before = [one.looks for one in listeners]
        for one, looks in zip(listeners, before, strict=True):
            await one.next_look(looks)  # without Redis it looks by itself, long before the sweep
        await asyncio.to_thread(own_valkey.start)
        await rung(api, *listeners)


async def test_redis_may_come_later_than_its_listeners(queue_of: QueueOf, own_valkey: Valkey) -> None:
    own_valkey.stop()
    api = queue_of()
    async with listening(queue_of()) as (worker,):
        await worker.next_look(0)
        await asyncio.to_thread(own_valkey.start)
        await rung(api, worker)


async def test_a_ring_without_redis_is_no_error_and_still_heard_in_its_own_process(
    queue_of: QueueOf, own_valkey: Valkey
) -> None:
    own_valkey.stop()
    queue = queue_of()
    async with listening(queue) as (worker,):
        await worker.next_look(0)
        looks = worker.looks
        async with asyncio.timeout(5):
            await queue.put("ftjob-x")
        await worker.next_look(looks)


async def test_a_redis_that_hangs_holds_no_ring_up(queue_of: QueueOf, own_valkey: Valkey) -> None:
    api = queue_of()
    async with listening(queue_of()) as (worker,):
        await rung(api, worker)
        own_valkey.freeze()
        try:
            async with asyncio.timeout(5):
                await api.put("ftjob-x")
        finally:
            own_valkey.thaw()
        await rung(api, worker)


async def test_rings_that_redis_holds_up_leave_no_connection_behind_and_are_bounded(
    own_valkey: Valkey, capfd: pytest.CaptureFixture[str]
) -> None:
    """A connection that is left open would be a warning, which fails a test."""
    connection = RedisConnection(own_valkey.url)
    bell = create_queue(connection, poll_seconds=0.02, sweep_seconds=NEVER_SECONDS)
    await appear(connection.client)
    own_valkey.freeze()
    try:
        await asyncio.gather(*(bell.put(f"ftjob-{number}") for number in range(RINGING_LIMIT + 20)))
    finally:
        own_valkey.thaw()
    await bell.close()
    said = capfd.readouterr().out
    assert said.count("bell.late") == RINGING_LIMIT and said.count("others are waiting") == 20
    gc.collect()


async def appear(redis: ArqRedis) -> None:
    """A listener that was killed a moment ago: it is still known and hears nothing."""
    now, _ = await redis.time()
    await redis.zadd(LISTENERS, {"luthier:bell:worker_killed": now})


async def test_what_goes_over_the_wire_is_json(queue_of: QueueOf, redis: ArqRedis) -> None:
    await appear(redis)
    await queue_of().put("ftjob-x")
    (key,) = await redis.keys("arq:job:*")
    message = json.loads(await redis.get(key))
    assert (message["f"], message["a"]) == ("look", ["ftjob-x"])


async def test_many_rings_leave_nothing_behind(queue_of: QueueOf, redis: ArqRedis) -> None:
    api = queue_of()
    async with listening(queue_of()) as (worker,):
        await rung(api, worker)
        for number in range(300):
            await api.put(f"ftjob-{number}")
        async with asyncio.timeout(WAIT_SECONDS):
            while await redis.keys("arq:*"):
                await asyncio.sleep(0.05)
        assert await redis.dbsize() <= 2  # who listens, and arq's sign of life
    assert await redis.zcard(LISTENERS) == 0


async def test_a_killed_listeners_rings_go_away_by_themselves(queue_of: QueueOf, redis: ArqRedis) -> None:
    await appear(redis)
    for number in range(20):
        await queue_of().put(f"ftjob-{number}")
    left = {key: await redis.pttl(key) for key in await redis.keys("*") if key != LISTENERS.encode()}
    assert len(left) == 21
    assert all(0 < milliseconds <= MESSAGE_SECONDS * 1000 for milliseconds in left.values()), left
