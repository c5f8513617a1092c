"""A job brought to rest at any step: its checkpoint can be called, and it ends in the bits of an undisturbed twin."""

import random

import pytest

from service.domain.errors import IllegalTransition
from service.domain.job import Job
from service.installation.context import Context
from service.operations import jobs, lookups
from service.operations.keys import Caller
from service.operations.models import resolve_for_inference
from tests.given.stored_models import find_model
from tests.given.worker import artifact, create, ended, reached, weights, worker

pytestmark = pytest.mark.slow
LONG = {"epochs": 12, "batch": 1}
STEPS = 288  # about four seconds


def resting(job: Job) -> bool:
    return job.status == "paused"


async def test_a_paused_job_goes_on_elsewhere_to_the_same_bits(ctx: Context, caller: Caller) -> None:
    seed = random.SystemRandom().randrange(10**6)
    moment = random.Random(seed).randrange(0, STEPS // 2)
    async with worker(ctx):
        twin, id = [await create(ctx, caller, 1, **LONG) for _ in range(2)]
        await reached(ctx, caller, id, lambda job: job.status == "running" and job.step >= moment)
        assert (await jobs.pause(ctx, caller, id)).job.status == "running"
        job = await reached(ctx, caller, id, resting)
        (undisturbed,) = await ended(ctx, caller, twin)
    assert moment < job.step < STEPS, f"seed {seed}"
    assert (await lookups.find_snapshots(ctx, id))[0].step == job.step
    name = await checkpoint_at(ctx, caller, id, job.step)
    assert name.endswith(f":ckpt-step-{job.step}")
    assert (await resolve_for_inference(ctx, caller, name)).name_for_engine == name
    assert (artifact(ctx, name) / "manifest.json").exists()
    assert (artifact(ctx, name) / "adapter_model.safetensors").exists()
    assert not list(ctx.settings.scratch_dir.glob(f"{id}-*"))

    await jobs.resume(ctx, caller, id)
    async with worker(ctx):
        (resumed,) = await ended(ctx, caller, id)
    assert resumed.status == "succeeded"
    assert weights(ctx, resumed) == weights(ctx, undisturbed), f"seed {seed}, step {job.step}"
    said = [event.message for event in (await jobs.event_page(ctx, caller, id, after=None, limit=1000)).items]
    assert not [message for message in said if "not bit-exact" in message]
    steps = [message for message in said if message.startswith("Step ")]
    assert len(steps) == len(set(steps)) == STEPS


async def test_a_job_may_be_paused_again_and_again(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        (calm,) = await ended(ctx, caller, await create(ctx, caller, 1, **LONG))
        id = await create(ctx, caller, 1, **LONG)
        rests = []
        for _ in range(3):
            await reached(ctx, caller, id, lambda job: job.status == "running")
            await jobs.pause(ctx, caller, id)
            rests.append((await reached(ctx, caller, id, resting)).step)
            await jobs.resume(ctx, caller, id)
        (job,) = await ended(ctx, caller, id)
    assert rests == sorted(set(rests))  # every stay does at least one step
    assert weights(ctx, job) == weights(ctx, calm)


async def test_a_paused_job_can_be_cancelled_and_keeps_its_checkpoint(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        id = await create(ctx, caller, 1, **LONG)
        await reached(ctx, caller, id, lambda job: job.step > 1)
        await jobs.pause(ctx, caller, id)
        job = await reached(ctx, caller, id, resting)
        assert (await jobs.cancel(ctx, caller, id)).job.status == "cancelled"
        await resolve_for_inference(ctx, caller, await checkpoint_at(ctx, caller, id, job.step))
        (other,) = await ended(ctx, caller, await create(ctx, caller, 1))  # the slot is free
    assert other.status == "succeeded"


async def test_a_queued_job_cannot_be_paused(ctx: Context, caller: Caller) -> None:
    id = await create(ctx, caller, 1)
    with pytest.raises(IllegalTransition):
        await jobs.pause(ctx, caller, id)


async def checkpoint_at(ctx: Context, caller: Caller, id: str, step: int) -> str:
    found = (await jobs.checkpoint_page(ctx, caller, id, after=None, limit=10)).items
    (name,) = [one.checkpoint.model_name for one in found if one.checkpoint.step == step]
    model = await find_model(ctx, name)
    assert model is not None and model.kind == "checkpoint" and model.deleted_at is None
    return name
