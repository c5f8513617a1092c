"""One worker in this process, real database, real trainers: jobs that crash, parts that are away or damaged."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from service.bootstrap import create_context
from service.db.schema import migrate
from service.domain.job import FINAL, Job
from service.operations import files, jobs, keys
from service.operations.context import Context
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.settings import Settings
from service.storage import StorageError
from service.storage.base import one_chunk
from tests.e2e.journey import rows
from tests.running_service import write_catalogue
from tests.tiny_models import make_tiny_base
from workers.supervisor import Supervisor
from workers.trainer.handle import TrainerHandle
from workers.trainer.launch import TrainerConfig

pytestmark = pytest.mark.slow
END_SECONDS = 180.0


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    base = make_tiny_base(tmp_path / "base")
    catalogue = write_catalogue(tmp_path / "bases.toml", base)
    settings = Settings(
        data_dir=tmp_path / "data", catalogue=catalogue, trainer_threads=1, snapshot_steps=5, lease_seconds=20
    )
    ctx = create_context(settings)
    await migrate(ctx.database)
    yield ctx
    await ctx.close()


@pytest.fixture
async def caller(ctx: Context) -> Caller:
    key = await keys.ensure_installation(ctx)
    assert key is not None
    return await keys.authenticate(ctx, key)


@asynccontextmanager
async def worker(ctx: Context, module: str = "workers.trainer.process") -> AsyncIterator[Supervisor]:
    """A supervisor whose trainers run `module`."""
    trainers = {
        base.id: TrainerHandle([sys.executable, "-m", module, config(ctx, base.id)], backoff_seconds=0.1)
        for base in ctx.catalogue.bases.values()
    }
    supervisor = Supervisor(ctx, trainers, ctx.settings.scratch_dir)
    running = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        supervisor.stop()
        await running


def config(ctx: Context, base_id: str) -> str:
    settings = ctx.settings
    return TrainerConfig(
        base=ctx.catalogue.bases[base_id],
        device="cpu",
        threads=1,
        turn_tokens=settings.turn_tokens,
        lease_seconds=settings.lease_seconds,
    ).model_dump_json()


async def create(ctx: Context, caller: Caller, seed: int) -> str:
    async with files.incoming(ctx) as incoming:
        await incoming.store(one_chunk(rows(24)))
        file = await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))
    hyperparameters = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 1.0}
    new = NewJob(model="tiny", training_file=file.id, seed=seed)
    new = replace(new, hyperparameters=new.hyperparameters.model_copy(update=hyperparameters))
    return (await jobs.create(ctx, caller, new)).job.id


async def ended(ctx: Context, caller: Caller, *ids: str) -> list[Job]:
    async with asyncio.timeout(END_SECONDS):
        while True:
            found = [(await jobs.retrieve(ctx, caller, id)).job for id in ids]
            if all(job.status in FINAL for job in found):
                return found
            await asyncio.sleep(0.1)


def weights(ctx: Context, job: Job) -> str:
    assert job.fine_tuned_model is not None
    folder = ctx.settings.data_dir / "objects" / "adapters" / quote(job.fine_tuned_model, safe="")
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


async def test_a_job_that_crashes_the_trainer_fails_and_its_neighbours_end_in_the_same_bits(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(ctx):
        calm = await ended(ctx, caller, await create(ctx, caller, 1), await create(ctx, caller, 2))
    crashing = await create(ctx, caller, 3)
    monkeypatch.setenv("LUTHIER_FAULT_KILL_JOB", crashing)
    monkeypatch.setenv("LUTHIER_FAULT_KILL_STEP", "4")
    neighbours = [await create(ctx, caller, 1), await create(ctx, caller, 2)]
    async with worker(ctx, "tests.faults.trainer"):
        guilty, *beside = await ended(ctx, caller, crashing, *neighbours)
    assert guilty.status == "failed"
    assert guilty.crashes == 3
    assert guilty.error is not None
    assert guilty.error["code"] == "trainer_crashed"
    assert [job.status for job in beside] == ["succeeded", "succeeded"]
    assert [job.crashes for job in beside] == [0, 0]
    assert [weights(ctx, job) for job in beside] == [weights(ctx, job) for job in calm]


async def test_storage_that_is_away_for_a_moment_costs_no_job(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, refused = ctx.storage.put, 0

    async def refusing(key: str, chunks: AsyncIterator[bytes]) -> int:
        nonlocal refused
        if key.startswith(("jobs/", "adapters/")) and refused < 6:
            refused += 1
            raise StorageError("the disk is away")
        return await put(key, chunks)

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
