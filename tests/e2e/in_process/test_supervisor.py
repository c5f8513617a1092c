"""One worker in this process, real database, real trainers: jobs that crash, parts that are unavailable or damaged."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.installation.context import Context
from service.operations import jobs
from service.operations.keys import Caller
from service.storage import StorageError
from tests.given.tiny_models import make_tiny_base
from tests.given.worker import END_SECONDS, create, ended, weights, worker

pytestmark = pytest.mark.slow


async def test_a_job_that_crashes_the_trainer_fails_and_its_neighbours_end_in_the_same_bits(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(ctx):
        calm = await ended(ctx, caller, await create(ctx, caller, 1), await create(ctx, caller, 2))
    crashing = await create(ctx, caller, 3)
    monkeypatch.setenv("LUTHIER_FAULT_KILL_JOB", crashing)
    monkeypatch.setenv("LUTHIER_FAULT_KILL_STEP", "4")
    neighbours = [await create(ctx, caller, 1), await create(ctx, caller, 2)]
    async with worker(ctx, "tests.faults.trainer", trainers=2):  # one neighbour is in the process that crashes
        guilty, *beside = await ended(ctx, caller, crashing, *neighbours)
    assert guilty.status == "failed"
    assert guilty.error is not None
    assert guilty.error["code"] == "trainer_crashed"
    assert "crashed 3 times" in guilty.error["message"]
    assert [job.status for job in beside] == ["succeeded", "succeeded"]
    assert [weights(ctx, job) for job in beside] == [weights(ctx, job) for job in calm]


async def test_storage_that_is_away_for_a_moment_costs_no_job(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, refused = ctx.storage.put, 0

    async def refusing(key: str, chunks: AsyncIterator[bytes], **options: bool) -> int:
        nonlocal refused
        if key.startswith(("jobs/", "adapters/")) and refused < 6:
            refused += 1
            raise StorageError("the disk is unavailable")
        return await put(key, chunks, **options)

    job_id = await create(ctx, caller, 1)
    monkeypatch.setattr(ctx.storage, "put", refusing)
    async with worker(ctx):
        (job,) = await ended(ctx, caller, job_id)
    assert refused == 6
    assert job.status == "succeeded"


async def test_a_damaged_snapshot_is_passed_over(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        (calm,) = await ended(ctx, caller, await create(ctx, caller, 1))
    job_id = await create(ctx, caller, 1)
    async with worker(ctx) as supervisor:
        async with asyncio.timeout(END_SECONDS):
            while (await jobs.retrieve(ctx, caller, job_id)).job.step < 7:
                await asyncio.sleep(0.01)
        supervisor.stop()
    folders = sorted((ctx.settings.data_dir / "objects" / "jobs" / job_id / "snapshots").iterdir())
    for path in folders[-1].iterdir():
        path.write_bytes(b"damaged")
    async with worker(ctx):
        (job,) = await ended(ctx, caller, job_id)
    assert job.status == "succeeded"
    assert weights(ctx, job) == weights(ctx, calm)


async def test_other_weights_under_a_known_base_id_are_refused(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        await ended(ctx, caller, await create(ctx, caller, 1))
    make_tiny_base(Path(ctx.catalogue.bases["tiny"].source), seed=1)
    async with worker(ctx):
        (job,) = await ended(ctx, caller, await create(ctx, caller, 1))
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "base_changed"
    assert "weights" in job.error["message"]
