"""How a worker spreads jobs over the trainers of one base; processes that load no base stand for them."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from workers.jobs.loading import BaseNotLoaded
from workers.supervisor.trainers import IDLE_BEATS, Trainers
from workers.trainer.parent.handle import TrainerHandle
from workers.trainer.protocol import Left, Seated

# Is loaded at once, says how many trainers are of use, and gives every job its slot.
TRAINER = """
import json, sys
print(json.dumps(dict(type="ready", revision="1", hashes={}, environment={}, trainers=int(sys.argv[1]))), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if command["type"] == "seat":
        print(json.dumps(dict(type="seated", job_id=command["job_id"], step=0, total_steps=9)), flush=True)
    elif command["type"] == "leave":
        print(json.dumps(dict(type="left", job_id=command["job_id"], finished=False)), flush=True)
"""


def handles(useful: int) -> Callable[[], TrainerHandle]:
    return lambda: TrainerHandle([sys.executable, "-c", TRAINER, str(useful)])


async def seated(trainers: Trainers, stack: AsyncExitStack, job_id: str) -> int:
    """The process that has the job now, until the stack is closed."""
    trainer = await stack.enter_async_context(trainers.place())
    reports = await stack.enter_async_context(aclosing(trainer.seat(job_id, Path("/nowhere"))))
    assert isinstance(await anext(reports), Seated)
    assert trainer.pid is not None
    return trainer.pid


@pytest.mark.parametrize(
    ("useful", "most", "processes"), [(1, 0, 1), (3, 0, 3), (3, 2, 2), (1, 2, 2)], ids=["one", "three", "fewer", "more"]
)
async def test_jobs_are_spread_over_as_many_as_are_of_use(useful: int, most: int, processes: int) -> None:
    trainers = Trainers(handles(useful), most)
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        found = [await seated(trainers, stack, str(number)) for number in range(2 * processes)]
    assert len(set(found)) == processes
    assert found[:processes] == found[processes:]  # those with the fewest jobs, the oldest first
    assert trainers.pids == found[:processes]
    await trainers.stop()
    assert not trainers.running


async def test_jobs_that_come_together_wait_until_it_is_known_how_many_are_of_use() -> None:
    trainers = Trainers(handles(2))
    async with asyncio.timeout(20), AsyncExitStack() as one, AsyncExitStack() as other:
        found = await asyncio.gather(seated(trainers, one, "one"), seated(trainers, other, "other"))
    assert len(set(found)) == 2
    await trainers.stop()


async def test_a_job_alone_starts_no_second_one() -> None:
    trainers = Trainers(handles(2))
    async with asyncio.timeout(20):
        for number in range(3):
            async with AsyncExitStack() as stack:
                await seated(trainers, stack, str(number))
    assert len(trainers.pids) == 1
    await trainers.stop()


async def test_one_without_a_job_ends_after_a_while_and_comes_back_for_one() -> None:
    trainers = Trainers(handles(2))
    async with asyncio.timeout(20), AsyncExitStack() as stay:
        first = await seated(trainers, stay, "one")
        async with AsyncExitStack() as stack:
            second = await seated(trainers, stack, "two")
            for _ in range(2 * IDLE_BEATS):
                await trainers.beat()
            assert trainers.pids == [first, second]
        while trainers.pids != [first]:
            await trainers.beat()
            await asyncio.sleep(0.01)
        async with AsyncExitStack() as stack:
            assert await seated(trainers, stack, "three") not in (first, second)
    await trainers.stop()


async def test_one_that_cannot_load_the_base_is_done_without() -> None:
    commands = iter([[sys.executable, "-c", TRAINER, "2"], ["false"]])
    trainers = Trainers(lambda: TrainerHandle(next(commands)))
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        first = await seated(trainers, stack, "one")
        with capture_logs() as logs, pytest.raises(BaseNotLoaded):
            async with trainers.place() as trainer:
                await anext(trainer.seat("two", Path("/nowhere")))
                raise BaseNotLoaded("tiny", "its trainer ended before the base was loaded")
        assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["worker.fewer_trainers"]
        assert await seated(trainers, stack, "two") == first
    await trainers.stop()


async def test_a_job_is_asked_to_leave_wherever_it_is() -> None:
    trainers = Trainers(handles(2))
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        await seated(trainers, stack, "one")
        trainer = await stack.enter_async_context(trainers.place())
        reports = await stack.enter_async_context(aclosing(trainer.seat("two", Path("/nowhere"))))
        assert isinstance(await anext(reports), Seated)
        await trainers.leave("two")
        assert await anext(reports) == Left(job_id="two", finished=False)
    await trainers.stop()
