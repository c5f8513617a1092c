"""A job that ends early on the step that was best, through a worker: what its user is told, calls and downloads."""

import pytest

from service.installation.context import Context
from service.operations import jobs
from service.operations.keys import Caller
from service.recipes.safeguards import EarlyStopping, Safeguards
from tests.given.stored_jobs import stored_events
from tests.given.worker import create, ended, upload, worker
from workers.files.artifacts import read_manifest

pytestmark = pytest.mark.slow
PER_EPOCH = 6  # steps of 24 rows, 4 at a time


async def test_a_job_that_learns_its_validation_file_no_further_ends_early_on_its_best_step(
    ctx: Context, caller: Caller
) -> None:
    file = await upload(ctx, caller)
    rule = EarlyStopping(patience=2, min_delta=0.05)
    asked = Safeguards(early_stopping=rule, checkpoint_selection="best", forgetting_report=True)
    async with worker(ctx):
        id = await create(
            ctx, caller, 1, epochs=12, rate=1.0, training_file=file, validation_file=file, safeguards=asked
        )
        (job,) = await ended(ctx, caller, id)
    assert job.status == "succeeded", job.error
    events = {event.message: event for event in await stored_events(ctx, id)}
    (stopped,) = [event for message, event in events.items() if message.startswith("Training stopped early at step")]
    (chosen,) = [event for message, event in events.items() if message.startswith("The model is that of step")]
    (forgotten,) = [event for message, event in events.items() if message.startswith("The model has forgotten")]
    step, last = chosen.data["step"], stopped.data["ended_step"]
    measured = [event.data for event in events.values() if "full_valid_loss" in event.data]
    full = {metrics["step"]: metrics["full_valid_loss"] for metrics in measured}
    assert step == min(full, key=lambda step: full[step])
    assert last == max(full) == job.step == job.total_steps < 12 * PER_EPOCH
    assert last - step <= 2 * PER_EPOCH

    manifest = await read_manifest(ctx.storage, job.fine_tuned_model or "")
    assert manifest.step == step
    assert manifest.metrics["full_valid_loss"] == full[step]
    assert manifest.metrics["general_text_loss_before"] == forgotten.data["loss_before"]
    assert manifest.metrics["general_text_loss_after"] == forgotten.data["loss_after"]
    assert manifest.hyperparameters["early_stopping"] == rule.model_dump()
    listed = (await jobs.checkpoint_page(ctx, caller, id, after=None, limit=10)).items
    assert len({one.checkpoint.step for one in listed}) == len(listed)
    assert step in {one.checkpoint.step for one in listed}
