"""What every bell must do: wake the worker, at the latest at the next look, never two handlers at once."""

import asyncio

import pytest

from service.queue import Queue, create_queue


@pytest.fixture
def queue() -> Queue:
    return create_queue(poll_seconds=0.05)


async def serve_until(queue: Queue, done: asyncio.Event, handler: object) -> None:
    serving = asyncio.create_task(queue.serve(handler))  # type: ignore[arg-type]
    try:
        await asyncio.wait_for(done.wait(), 5)
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_the_handler_looks_even_when_no_bell_rang(queue: Queue) -> None:
    looks, done = [], asyncio.Event()

    async def handler() -> None:
        looks.append(1)
        if len(looks) == 3:
            done.set()

    await serve_until(queue, done, handler)


async def test_a_ring_is_heard_before_the_next_look() -> None:
    queue, heard, looked = create_queue(poll_seconds=3600), asyncio.Event(), asyncio.Event()

    async def handler() -> None:
        (heard if looked.is_set() else looked).set()

    async def ring() -> None:
        await looked.wait()
        await queue.put("ftjob-x")

    ringing = asyncio.create_task(ring())
    await serve_until(queue, heard, handler)
    await ringing


async def test_handlers_never_overlap(queue: Queue) -> None:
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
