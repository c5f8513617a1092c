"""What every bell must do: wake the worker, at the latest at the next look, never two handlers at once."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from service.domain.errors import Unavailable
from service.queue import Handler, Queue, create_queue
from service.queue.embedded import EmbeddedQueue
from service.queue.pipes import Pipes
from service.queue.redis import RedisConnection
from tests.servers.valkey import Valkey

NEVER_SECONDS = 3600.0
QueueOf = Callable[[float], Queue]


@pytest.fixture(params=["embedded", pytest.param("arq", marks=pytest.mark.slow)])
async def queue_of(request: pytest.FixtureRequest) -> AsyncIterator[QueueOf]:
    """Makes a bell that looks by itself after so many seconds."""
    if request.param == "embedded":
        yield lambda seconds: create_queue(None, poll_seconds=seconds, sweep_seconds=NEVER_SECONDS)
        return
    valkey: Valkey = request.getfixturevalue("valkey")
    redis = RedisConnection(valkey.url)
    yield lambda seconds: create_queue(redis, poll_seconds=0.02, sweep_seconds=seconds)
    await redis.close()


async def serve_until(queue: Queue, done: asyncio.Event, handler: Handler) -> None:
    serving = asyncio.create_task(queue.serve(handler))
    try:
        async with asyncio.timeout(5):
            await done.wait()
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_the_handler_looks_even_when_no_bell_rang(queue_of: QueueOf) -> None:
    looks, done = [], asyncio.Event()

    async def handler() -> None:
        looks.append(1)
        if len(looks) == 3:
            done.set()

    await serve_until(queue_of(0.05), done, handler)


async def test_a_ring_is_heard_before_the_next_look(queue_of: QueueOf) -> None:
    queue, heard, looked = queue_of(NEVER_SECONDS), asyncio.Event(), asyncio.Event()

    async def handler() -> None:
        (heard if looked.is_set() else looked).set()

    async def ring() -> None:
        await looked.wait()
        await queue.put("ftjob-x")

    ringing = asyncio.create_task(ring())
    await serve_until(queue, heard, handler)
    await ringing


async def test_handlers_never_overlap(queue_of: QueueOf) -> None:
    queue = queue_of(0.05)
    running, most, calls, done = 0, 0, 0, asyncio.Event()

    async def handler() -> None:
        nonlocal running, most, calls
        running += 1
        most = max(most, running)
        await queue.put("ftjob-x")
        await asyncio.sleep(0.01)
        running -= 1
        calls += 1
        if calls == 5:
            done.set()

    await serve_until(queue, done, handler)
    assert most == 1


async def test_a_mistake_in_the_handler_ends_the_service_loudly(queue_of: QueueOf) -> None:
    async def handler() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(5):
            await queue_of(0.05).serve(handler)


async def test_a_bell_that_works_passes_its_check(queue_of: QueueOf) -> None:
    await queue_of(NEVER_SECONDS).check()


async def test_a_bell_whose_server_is_unavailable_says_so() -> None:
    queue = create_queue(RedisConnection("redis://127.0.0.1:1/0"), poll_seconds=1, sweep_seconds=1)
    with pytest.raises(Unavailable, match="Redis is unavailable"):
        await queue.check()
    await queue.close()


async def test_without_a_server_the_handler_looks_after_a_commit_and_rarely_otherwise() -> None:
    """Counted: an idle worker asks the database nothing, and a commit of anybody wakes it at the next check."""
    commits, looks, done = [1], [], asyncio.Event()
    checks = 0

    def last_commit() -> int:
        nonlocal checks
        checks += 1
        if checks == 50:
            commits.append(2)
        if checks == 100:
            done.set()
        return commits[-1]

    async def handler() -> None:
        looks.append(checks)

    queue = create_queue(None, poll_seconds=0.001, sweep_seconds=NEVER_SECONDS, last_commit=last_commit)
    await serve_until(queue, done, handler)
    assert len(looks) == 2 and looks[0] == 1 and looks[1] in (50, 51)


async def test_without_a_server_and_a_commit_the_handler_looks_at_every_sweep() -> None:
    looks, done = [], asyncio.Event()

    async def handler() -> None:
        looks.append(1)
        if len(looks) == 3:
            done.set()

    queue = create_queue(None, poll_seconds=0.001, sweep_seconds=0.01, last_commit=lambda: 1)
    await serve_until(queue, done, handler)


async def test_a_ring_wakes_the_listeners_of_other_processes_without_anybody_looking(tmp_path: Path) -> None:
    folder = tmp_path / "bells"
    one, other = (EmbeddedQueue(NEVER_SECONDS, NEVER_SECONDS, lambda: 1, Pipes(folder)) for _ in range(2))
    await other.put("ftjob-x")  # nobody listens yet, and there is no folder
    looks, done = [], asyncio.Event()

    async def handler() -> None:
        looks.append(len(list(folder.iterdir())))
        if len(looks) == 2:
            done.set()
        else:
            os.mkfifo(folder / "dead")  # of a listener that was killed
            await other.put("ftjob-x")

    await serve_until(one, done, handler)
    assert looks == [1, 1], "a pipe that nobody reads is removed"
    assert not list(folder.iterdir())


async def test_where_no_pipe_can_be_made_commits_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "bells").write_text("not a folder")
    commits, looks, done = iter(range(10_000)), [], asyncio.Event()

    async def handler() -> None:
        looks.append(1)
        if len(looks) == 3:
            done.set()

    pipes = Pipes(tmp_path / "bells")
    await serve_until(EmbeddedQueue(0.001, NEVER_SECONDS, lambda: next(commits), pipes), done, handler)
