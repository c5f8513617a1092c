"""Projects share the slots of a worker: a short job waits for turns of its neighbours, not for the end of their jobs.

Counted in steps, by the trainer's own journal. 2000 steps stand for 20,000: neither comes near its end.
"""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.installation.context import Context
from service.operations import jobs, keys
from service.operations.keys import Caller
from tests.given.worker import create, ended, installation, reached, weights, worker

pytestmark = pytest.mark.slow
SLOTS, SLOT_STEPS = 2, 4
LONG = {"epochs": 2000, "batch": 24}  # one step each
SHORT = {"epochs": 5, "batch": 24}


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(
        tmp_path, ["other"], slots=SLOTS, slot_steps=SLOT_STEPS, snapshot_steps=1000, turn_tokens=1
    ) as ctx:
        yield ctx


@pytest.fixture
async def other(ctx: Context, caller: Caller) -> Caller:
    """A caller of another project."""
    return await keys.authenticate(ctx, await keys.create_key(ctx, "other", "project"))


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "journal"
    path.touch()
    monkeypatch.setenv("LUTHIER_FAULT_JOURNAL", str(path))
    return path


def lines(journal: Path) -> list[list[str]]:
    return [line.split() for line in journal.read_text(encoding="utf-8").splitlines()]


def stays(told: list[list[str]], job_id: str) -> list[int]:
    """How many steps the job did in each of its stays in a slot that are over."""
    found, count = [], 0
    for what, job, *_ in told:
        if job == job_id and what == "step":
            count += 1
        elif job == job_id and what == "left":
            found.append(count)
            count = 0
    return found


async def seated_jobs(ctx: Context, caller: Caller) -> list[str]:
    """Long jobs, one in each slot. Only then are others created: of several in validation, any may be first."""
    found = [await create(ctx, caller, seed, **LONG) for seed in range(SLOTS)]
    for id in found:
        await reached(ctx, caller, id, lambda job: job.step > 0)
    return found


async def test_five_steps_wait_for_no_more_than_two_turns_of_twelve_long_jobs(
    ctx: Context, caller: Caller, other: Caller, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_FAULT_STEP_SECONDS", "0.2")
    async with worker(ctx, "tests.faults.journal_trainer"):
        many = await seated_jobs(ctx, caller)
        many += [await create(ctx, caller, seed, **LONG) for seed in range(SLOTS, 12)]
        for id in many[:SLOTS]:
            await reached(ctx, caller, id, lambda job: job.step > SLOT_STEPS)
        for id in many[SLOTS:]:
            await reached(ctx, caller, id, lambda job: job.status == "queued")
        short = await create(ctx, other, 99, **SHORT)
        await reached(ctx, other, short, lambda job: job.status != "validating_files")
        before = len(lines(journal))
        (job,) = await ended(ctx, other, short)
        told = lines(journal)
        running = [(await jobs.retrieve(ctx, caller, id)).job.status for id in many]
        for id in many:
            await jobs.cancel(ctx, caller, id)
    assert job.status == "succeeded", job.error
    assert set(running) == {"running", "queued"}
    seated = told.index(["seated", short])
    last = told.index(["step", short, "5"])
    waited = Counter(name for what, name, *_ in told[before:seated] if what == "step")
    beside = Counter(name for what, name, *_ in told[seated:last] if what == "step" and name != short)
    made_room = [name for what, name, *_ in told[:seated] if what == "left"][-1]
    # Its neighbour steps on while the job's snapshot is written and stored, and delays nobody by that.
    assert waited[made_room] <= 2 * SLOT_STEPS, waited
    assert sum(beside.values()) <= (SLOTS - 1) * (5 + 1), beside  # its neighbours step in turns with it
    assert min(steps for id in many for steps in stays(told, id)[:1]) >= SLOT_STEPS


async def test_a_job_that_made_room_again_and_again_ends_in_the_same_bits(
    ctx: Context, caller: Caller, other: Caller, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUTHIER_FAULT_STEP_SECONDS", "0.1")  # so that it still trains when the other waits
    one_slot = ctx.settings.model_copy(update={"slots": 1})
    alone = type(ctx)(**{**vars(ctx), "settings": one_slot})
    async with worker(alone, "tests.faults.journal_trainer"):
        (calm,) = await ended(ctx, caller, await create(ctx, caller, 1, epochs=20, batch=24))
        made_room = await create(ctx, caller, 1, epochs=20, batch=24)
        beside = await create(ctx, other, 2, epochs=20, batch=24)
        (job,) = await ended(ctx, caller, made_room)
        (neighbour,) = await ended(ctx, other, beside)
    assert [found.status for found in (job, neighbour)] == ["succeeded"] * 2
    assert weights(ctx, job) == weights(ctx, calm)
    for id in (made_room, beside):
        over = stays(lines(journal), id)
        assert sum(over) == 20, over  # nothing was trained twice
        assert len(over) > 1 and min(over[:-1]) >= SLOT_STEPS, over
    messages = [event.message for event in (await jobs.event_page(ctx, caller, made_room, after=None, limit=100)).items]
    assert len(messages) == len(set(messages))
    assert not [message for message in messages if "not bit-exact" in message]


async def test_a_job_of_another_base_gets_the_trainer_after_everybodys_turn(
    ctx: Context, caller: Caller, other: Caller, journal: Path
) -> None:
    async with worker(ctx, "tests.faults.journal_trainer"):
        long = await seated_jobs(ctx, caller)
        long.append(await create(ctx, caller, SLOTS, **LONG))
        (job,) = await ended(ctx, other, await create(ctx, other, 9, model="other", **SHORT))
        await reached(ctx, caller, long[0], lambda found: found.step > stays(lines(journal), found.id)[0])  # it runs
        for id in long:
            await jobs.cancel(ctx, caller, id)
    assert job.status == "succeeded", job.error
    assert stays(lines(journal), long[0])[0] < 2000
