"""A job that continues a tuned model: it starts where the parent ended, and needs nothing of it but its artifact."""

from typing import Any

import pytest

from service.domain.job import Job
from service.installation.context import Context
from service.operations import chores, jobs, lookups, models
from service.operations.keys import Caller
from service.recipes.tunings.lora import LoraSettings
from tests.given.worker import artifact, create, ended, reached, upload, weights, worker
from workers.files.artifacts import read_manifest

pytestmark = pytest.mark.slow
LORA = LoraSettings(r=4, dropout=0.0)
ROWS = 24


async def train(ctx: Context, caller: Caller, **fields: Any) -> Job:
    (job,) = await ended(ctx, caller, await create(ctx, caller, 1, **fields))
    return job


async def test_a_job_starts_where_its_parent_ended(ctx: Context, caller: Caller) -> None:
    file = await upload(ctx, caller)
    same: dict[str, Any] = {"training_file": file, "validation_file": file}
    async with worker(ctx):
        parent = await train(ctx, caller, epochs=8, tuning=LORA, **same)
        name = parent.fine_tuned_model
        children = [await train(ctx, caller, epochs=2, batch=ROWS, model=name, **same) for _ in range(2)]
    from_base, at_end = (await lookups.metrics_of(ctx, parent.id))[0], (await lookups.metrics_of(ctx, parent.id))[-1]
    first = (await lookups.metrics_of(ctx, children[0].id))[0]
    assert first["train_loss"] == pytest.approx(at_end["full_valid_loss"], rel=1e-4)
    assert first["train_loss"] < 0.7 * from_base["train_loss"]

    child = children[0]
    assert (child.base, child.parent_model, child.tuning) == ("tiny", name, parent.tuning)
    assert child.fine_tuned_model is not None and child.fine_tuned_model.startswith("ft:tiny:luthier::")
    assert (await read_manifest(ctx.storage, child.fine_tuned_model)).parent == name
    assert weights(ctx, child) == weights(ctx, children[1]) != weights(ctx, parent)


async def test_a_deleted_parents_bytes_stay_until_the_job_is_final(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        parent = await train(ctx, caller, tuning=LORA)
        assert parent.fine_tuned_model is not None
        calm = await train(ctx, caller, epochs=12, model=parent.fine_tuned_model)
    id = await create(ctx, caller, 1, epochs=12, model=parent.fine_tuned_model)
    await models.delete(ctx, caller, parent.fine_tuned_model)
    await chores.sweep(ctx)
    assert (artifact(ctx, parent.fine_tuned_model) / "manifest.json").exists()
    async with worker(ctx) as supervisor:
        await reached(ctx, caller, id, lambda job: job.step > 6)
        supervisor.stop()
    await chores.sweep(ctx)
    async with worker(ctx):
        (job,) = await ended(ctx, caller, id)
    assert weights(ctx, job) == weights(ctx, calm)
    await chores.sweep(ctx)
    assert not list(artifact(ctx, parent.fine_tuned_model).glob("*"))


async def test_a_damaged_parent_fails_the_job_and_says_so(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        parent = await train(ctx, caller, tuning=LORA)
        (artifact(ctx, parent.fine_tuned_model) / "adapter_model.safetensors").write_bytes(b"damaged")
        job = await train(ctx, caller, model=parent.fine_tuned_model)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("parent_unavailable", "model")
    assert (await jobs.retrieve(ctx, caller, job.id)).job.fine_tuned_model is None
