"""A real base, SmolLM2-135M: a job that is paused, resumed and loses its trainer to SIGKILL ends in its twin's bits."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.demo.known_base import BaseMissing, catalogue_with, fetch
from service.installation.context import Context
from service.operations import jobs
from service.operations.keys import Caller
from service.recipes.catalogue import read_catalogue
from service.settings.settings import Settings
from tests.given.installation import installed
from tests.given.running_service import command_line, descendants, kill, write_catalogue
from tests.given.worker import create, ended, first_caller, reached, upload, weights, worker
from tests.servers import missing

pytestmark = pytest.mark.slow
BASE = "smollm2-135m"
NUM_ROWS, BATCH, EPOCHS = 10, 1, 1
STEPS = NUM_ROWS // BATCH * EPOCHS


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    """An installation with the real base alone, which nobody serves."""
    try:
        fetched = catalogue_with(BASE) or fetch(BASE)
    except BaseMissing as reason:
        missing("SmolLM2-135M-Instruct", str(reason))
    catalogue = write_catalogue(tmp_path / "bases.toml", read_catalogue(fetched).bases[BASE])
    settings = Settings(
        data_dir=tmp_path / "data", catalogue=catalogue, engine_urls="", trainer_threads=1, snapshot_steps=2
    )
    async with installed(settings) as ctx:
        yield ctx


@pytest.fixture
async def caller(ctx: Context) -> Caller:
    return await first_caller(ctx)


async def started(ctx: Context, caller: Caller) -> str:
    file = await upload(ctx, caller, NUM_ROWS)
    return await create(ctx, caller, 7, model=BASE, training_file=file, epochs=EPOCHS, batch=BATCH)


def kill_trainer() -> None:
    """That of this base: others may still be about to end."""
    (trainer,) = [pid for pid in descendants(os.getpid()) if f'"id":"{BASE}"' in command_line(pid)]
    kill(trainer)


async def test_a_job_of_a_real_base_is_paused_resumed_and_killed_and_ends_in_the_same_bits(
    ctx: Context, caller: Caller
) -> None:
    async with worker(ctx):
        (calm,) = await ended(ctx, caller, await started(ctx, caller))
        id = await started(ctx, caller)
        await reached(ctx, caller, id, lambda job: job.step >= 1)
        await jobs.pause(ctx, caller, id)
        paused = await reached(ctx, caller, id, lambda job: job.status == "paused")
        await jobs.resume(ctx, caller, id)
        at = await reached(ctx, caller, id, lambda job: job.step > paused.step)
        kill_trainer()
        (job,) = await ended(ctx, caller, id)
    assert 1 <= paused.step < at.step < STEPS
    assert job.status == calm.status == "succeeded" and job.step == STEPS
    assert weights(ctx, job) == weights(ctx, calm)
    said = [event.message for event in (await jobs.event_page(ctx, caller, id, after=None, limit=1000)).items]
    assert not [message for message in said if "not bit-exact" in message]
    assert len([message for message in said if message.startswith("Step ")]) == STEPS
