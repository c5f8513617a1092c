"""A worker in the test's own process, on a real database with real trainers, and the steps that its tests share."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from service.domain.job import FINAL, Job
from service.installation.context import Context
from service.operations import files, jobs, keys
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.installation import installed
from tests.given.journey import rows
from tests.given.running_service import write_catalogue
from tests.given.tiny_models import make_tiny_base
from workers.supervisor.supervisor import Supervisor
from workers.supervisor.trainers import Trainers
from workers.trainer.launch import TrainerConfig
from workers.trainer.parent.handle import TrainerHandle

END_SECONDS = 180.0


@asynccontextmanager
async def installation(
    folder: Path, more: Sequence[str] = (), tunings: Sequence[str] = ("lora", "prompt"), **changes: Any
) -> AsyncIterator[Context]:
    """A migrated installation with the base `tiny`, and `more` of its kind with other weights.

    Without an engine, unless `changes` of the settings name one.
    """
    bases = [make_tiny_base(folder / "base", tunings=tunings)]
    bases += [make_tiny_base(folder / id, seed=1).model_copy(update={"id": id}) for id in more]
    catalogue = write_catalogue(folder / "bases.toml", *bases)
    usual = {"engine_urls": "", "trainer_threads": 1, "trainers": 1, "snapshot_steps": 5, "lease_seconds": 20}
    settings = Settings(data_dir=folder / "data", catalogue=catalogue, **{**usual, **changes})
    async with installed(settings) as ctx:
        yield ctx


async def first_caller(ctx: Context) -> Caller:
    """Whom the first start's key stands for."""
    key = await keys.ensure_installation(ctx)
    assert key is not None
    return await keys.authenticate(ctx, key)


@asynccontextmanager
async def worker(
    ctx: Context, module: str = "workers.trainer.process.loop", trainers: int = 1
) -> AsyncIterator[Supervisor]:
    """A supervisor whose trainers, so many for each base, run `module`."""
    of_bases = {
        base.id: Trainers(partial(trainer, ctx, base.id, module), trainers)
        for base in ctx.catalogue.named(ctx.settings.held_bases)
    }
    supervisor = Supervisor(ctx, of_bases, ctx.settings.scratch_dir)
    running = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        supervisor.stop()
        await running


def trainer(ctx: Context, base_id: str, module: str) -> TrainerHandle:
    return TrainerHandle([sys.executable, "-m", module, config(ctx, base_id)], backoff_seconds=0.1)


def config(ctx: Context, base_id: str) -> str:
    settings = ctx.settings
    return TrainerConfig(
        base=ctx.catalogue.bases[base_id],
        device="cpu",
        threads=1,
        turn_tokens=settings.turn_tokens,
        lease_seconds=settings.lease_seconds,
    ).model_dump_json()


async def upload(ctx: Context, caller: Caller, num_rows: int = 24) -> str:
    """A training file."""
    async with files.incoming(ctx) as incoming:
        await incoming.store(one_chunk(rows(num_rows)))
        return (await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))).id


async def create(
    ctx: Context, caller: Caller, seed: int, *, epochs: int = 3, batch: int = 4, rate: float = 1.0, **fields: Any
) -> str:
    """A job of 24 rows, of the tiny base where `fields` name no other model."""
    hyperparameters = {"n_epochs": epochs, "batch_size": batch, "learning_rate_multiplier": rate}
    if "training_file" not in fields:
        fields["training_file"] = await upload(ctx, caller)
    new = NewJob(**{"model": "tiny", "seed": seed, **fields})
    new = replace(new, hyperparameters=new.hyperparameters.model_copy(update=hyperparameters))
    return (await jobs.create(ctx, caller, new)).job.id


async def reached(ctx: Context, caller: Caller, id: str, there: Callable[[Job], bool]) -> Job:
    """The job, once it is there. It is read again after a commit only, since reading costs a hundred times as much."""
    async with asyncio.timeout(END_SECONDS):
        while True:
            seen = ctx.database.last_commit()
            if there(job := (await jobs.retrieve(ctx, caller, id)).job):
                return job
            await asyncio.sleep(0.01)
            while seen is not None and ctx.database.last_commit() == seen:
                await asyncio.sleep(0.01)


async def ended(ctx: Context, caller: Caller, *ids: str) -> list[Job]:
    return [await reached(ctx, caller, id, lambda job: job.status in FINAL) for id in ids]


def artifact(ctx: Context, name: str | None) -> Path:
    """Where embedded storage keeps the artifact of `name`."""
    assert name is not None
    return ctx.settings.data_dir / "objects" / "adapters" / quote(name, safe="")


def weights(ctx: Context, job: Job) -> str:
    """sha256 of the final adapter's weights."""
    return hashlib.sha256((artifact(ctx, job.fine_tuned_model) / "adapter_model.safetensors").read_bytes()).hexdigest()
