"""Workers that hold several bases, or different ones: every job ends, and one base at a time is in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.installation.context import Context
from service.installation.create import create_context
from service.operations import jobs
from service.operations.keys import Caller
from service.recipes.catalogue import CatalogueError
from tests.given.worker import create, ended, installation, reached, worker
from tests.servers.valkey import Valkey
from workers.supervisor.trainers import create_trainers

pytestmark = pytest.mark.slow
LONE = "tests.faults.lone_trainer"


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path, ["other"]) as ctx:
        yield ctx


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the trainers of this test write at their start."""
    path = tmp_path / "journal"
    monkeypatch.setenv("LUTHIER_FAULT_LONE", str(path))
    return path


async def test_jobs_of_two_bases_take_turns_and_all_end(ctx: Context, caller: Caller, journal: Path) -> None:
    names = ["tiny", "other", "tiny", "other"]
    async with worker(ctx, LONE):
        ids = [await create(ctx, caller, seed, model=name) for seed, name in enumerate(names)]
        found = await ended(ctx, caller, *ids)
    assert [job.status for job in found] == ["succeeded"] * 4
    assert [(job.fine_tuned_model or "").split(":")[1] for job in found] == names
    starts = journal.read_text(encoding="utf-8").split()
    assert "crowded" not in starts
    assert set(starts) == {"tiny", "other"}


async def test_a_stream_of_younger_jobs_does_not_keep_an_older_one_waiting(
    ctx: Context, caller: Caller, journal: Path
) -> None:
    async with worker(ctx, LONE):
        endless = await create(ctx, caller, 1, epochs=1000)
        await reached(ctx, caller, endless, lambda job: job.step > 0)
        older = await create(ctx, caller, 2, model="other")
        await reached(ctx, caller, older, lambda job: job.status == "queued")
        younger = [await create(ctx, caller, seed) for seed in range(3, 6)]
        for id in younger:
            await reached(ctx, caller, id, lambda job: job.status != "validating_files")
        before = [(await jobs.retrieve(ctx, caller, id)).job.status for id in younger]
        assert before == ["queued"] * 3  # though three slots are free
        assert (await jobs.retrieve(ctx, caller, younger[-1])).queue_position == 2
        assert (await jobs.retrieve(ctx, caller, older)).queue_position == 0
        await jobs.cancel(ctx, caller, endless)
        await ended(ctx, caller, older, *younger)
    starts = journal.read_text(encoding="utf-8").split()
    assert starts == ["tiny", "other", "tiny"]


async def test_workers_of_different_bases_share_the_work_over_redis(
    tmp_path: Path, ctx: Context, caller: Caller, valkey: Valkey
) -> None:
    """The sweep is far off: every claim is a bell's."""
    shared = ctx.settings.model_copy(update={"redis_url": valkey.url, "sweep_seconds": 3600.0})
    contexts = [create_context(shared.model_copy(update={"bases": name})) for name in ("tiny", "other", "")]
    *holders, api = contexts
    try:
        async with worker(holders[0]), worker(holders[1]):
            ids = [await create(api, caller, seed, model=name) for seed, name in enumerate(["other", "tiny"])]
            found = await ended(api, caller, *ids)
    finally:
        for context in contexts:
            await context.close()
    assert [job.status for job in found] == ["succeeded"] * 2


async def test_a_pause_reaches_the_worker_that_has_the_job(ctx: Context, caller: Caller, valkey: Valkey) -> None:
    shared = ctx.settings.model_copy(update={"redis_url": valkey.url, "sweep_seconds": 3600.0})
    contexts = [create_context(shared) for _ in range(3)]
    *holders, api = contexts
    try:
        async with worker(holders[0]), worker(holders[1]):
            id = await create(api, caller, 1, epochs=200)
            await reached(api, caller, id, lambda job: job.step > 0)
            await jobs.pause(api, caller, id)
            await reached(api, caller, id, lambda job: job.status == "paused")
            await jobs.cancel(api, caller, id)
    finally:
        for context in contexts:
            await context.close()


async def test_a_worker_refuses_a_base_that_there_is_not(ctx: Context) -> None:
    settings = ctx.settings.model_copy(update={"bases": "tiny, none"})
    with pytest.raises(CatalogueError, match="no base 'none'"):
        create_trainers(settings, ctx.catalogue)
    held = create_trainers(ctx.settings.model_copy(update={"bases": " other "}), ctx.catalogue)
    assert list(held) == ["other"]
    await asyncio.gather(*(trainer.stop() for trainer in held.values()))
