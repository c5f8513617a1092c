"""A project as somebody has used it for a while: files, and jobs in every state with curves, checkpoints and a model.

Made by the operations that routes and workers call; no trainer runs.
"""

import math
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.domain import event as wording
from service.domain import ids
from service.domain.errors import JobError
from service.domain.file import RESULT_PURPOSE, File, Segment
from service.domain.job import Job
from service.domain.model import Model, model_name
from service.installation.context import Context
from service.operations import files, jobs
from service.operations.files import NewFile
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.operations.progress import HeldJob, StepRecord
from service.recipes.objective import OBJECTIVES, hyperparameters_type
from service.recipes.tuning import tuning_of
from tests.given.work import claim_training, claim_validation, set_work

ROWS = Path(__file__).parents[2] / "examples" / "demo" / "training.jsonl"
BASE = "luthier-tiny"
EPOCHS = 6
LAST_STEP = 240
FAR = 4e9  # unix seconds: nobody claims what waits until then


@dataclass(frozen=True)
class Workshop:
    """Ids of what there is."""

    file: str
    succeeded: str
    other: str
    running: HeldJob
    paused: str
    failed: str
    queued: str
    model: str


async def furnish(ctx: Context, caller: Caller) -> Workshop:
    """Everything, in the order in which somebody would have made it."""
    file = await stored(ctx, caller, "workshop.jsonl", ROWS.read_bytes())
    failed = await new_job(ctx, caller, file, "first-try")
    held = await claim_validation(ctx, "one")
    assert held is not None
    message = "The training file has 2 invalid lines. Line 14: messages[1].role is 'asistant'; write 'assistant'."
    await held.fail(JobError("invalid_training_file", message, "training_file"))
    other = await held_for_training(ctx, caller, file, "half-rate", {"learning_rate_multiplier": 0.5})
    await train(other, 1, LAST_STEP, floor=0.55, seed=2)
    await finish(other, ctx)
    done = await held_for_training(ctx, caller, file, "workshop", {}, {"r": 8})
    await train(done, 1, LAST_STEP, floor=0.32, seed=1)
    model = await finish(done, ctx)
    resting = await held_for_training(ctx, caller, file, "long-context", {"n_epochs": 12})
    await train(resting, 1, 90, seed=3)
    await jobs.pause(ctx, caller, resting.job.id)
    await resting.pause(90)
    running = await held_for_training(ctx, caller, file, "rank-32", {}, {"r": 32, "alpha": 64})
    await train(running, 1, 150, seed=4)
    queued = await new_job(ctx, caller, file, "next-week")
    held = await claim_validation(ctx, "one")
    assert held is not None
    await held.validated(hyperparameters=_resolved({}), total_steps=LAST_STEP)
    await set_work(ctx, queued.id, not_before=FAR)
    return Workshop(file, done.job.id, other.job.id, running, resting.job.id, failed.id, queued.id, model)


async def stored(ctx: Context, caller: Caller, name: str, content: bytes) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        yield content

    async with files.incoming(ctx) as incoming:
        await incoming.store(chunks())
        return (await incoming.create(caller, NewFile(name, "fine-tune"))).id


async def new_job(
    ctx: Context,
    caller: Caller,
    file: str,
    suffix: str | None = None,
    hyperparameters: Mapping[str, object] | None = None,
    lora: Mapping[str, object] | None = None,
) -> Job:
    given = hyperparameters_type(OBJECTIVES.default).model_validate({"n_epochs": EPOCHS, **(hyperparameters or {})})
    new = NewJob(
        model=BASE,
        training_file=file,
        seed=7,
        suffix=suffix,
        hyperparameters=given,
        tuning=tuning_of({"type": "lora", "lora": dict(lora or {})}),
    )
    return (await jobs.create(ctx, caller, new)).job


async def held_for_training(
    ctx: Context,
    caller: Caller,
    file: str,
    suffix: str | None = None,
    hyperparameters: Mapping[str, object] | None = None,
    lora: Mapping[str, object] | None = None,
) -> HeldJob:
    """A job whose file was found good and that a worker holds."""
    job = await new_job(ctx, caller, file, suffix, hyperparameters, lora)
    checked = await claim_validation(ctx, "one")
    assert checked is not None and checked.job.id == job.id
    await checked.validated(hyperparameters=_resolved(hyperparameters or {}), total_steps=LAST_STEP)
    held = await claim_training(ctx, "one")
    assert held is not None and held.job.id == job.id
    return held


async def train(held: HeldJob, first: int, last: int, *, floor: float = 0.4, seed: int = 0) -> None:
    """Steps `first` to `last`, as a worker reports them."""
    noise = random.Random(seed * 1000 + first)
    records = []
    for step in range(first, last + 1):
        loss = floor + 3.1 * math.exp(-step / 38)
        metrics: dict[str, int | float] = {
            "step": step,
            "total_steps": LAST_STEP,
            "train_loss": max(0.01, loss * (1 + noise.gauss(0, 0.09))),
            "train_mean_token_accuracy": min(0.99, 1 - loss / 4.4 + noise.gauss(0, 0.015)),
            "learning_rate": 2e-3 * min(step / 12, (LAST_STEP + 1 - step) / (LAST_STEP - 11)),
            "grad_norm": 1.4 * math.exp(-step / 60) + 0.3 + abs(noise.gauss(0, 0.05)),
            "tokens_per_second": round(1180 + noise.gauss(0, 40), 1),
            "trained_tokens": 60 * step,
        }
        if step % 10 == 0:
            metrics["valid_loss"] = loss * 1.12 + noise.gauss(0, 0.02)
        records.append(StepRecord(step, 60 * step, metrics))
    await held.record_steps(records, 0.8)


async def finish(held: HeldJob, ctx: Context) -> str:
    """Two checkpoints and the model, announced; the model's name."""
    publication, organization = ids.publication_id(), ctx.settings.organization
    for step in (LAST_STEP // 3, 2 * LAST_STEP // 3):
        name = model_name(BASE, organization, held.job.suffix, ids.publication_id(), step)
        await held.publish(_model(held, name, step), _losses(step))
    final = _model(held, model_name(BASE, organization, held.job.suffix, publication), LAST_STEP)
    id = ids.file_id()
    now = int(time.time())
    result = File(id, held.job.project_id, RESULT_PURPOSE, "step_metrics.csv", "text/csv", 1, created_at=now)
    figures = {"served_effect": 0.4213, "trained_effect": 0.4209, "tokens": 512}
    segments = [Segment(f"files/{id}/0", 1, "0" * 64)]
    await held.finish(final, _losses(LAST_STEP), (result, segments), wording.agrees(figures))
    return final.name


def _losses(step: int) -> dict[str, int | float]:
    loss = 0.4 + 3.1 * math.exp(-step / 38)
    return {"step": step, "train_loss": loss, "full_valid_loss": 1.12 * loss}


def _model(held: HeldJob, name: str, step: int) -> Model:
    kind = "final" if step == LAST_STEP else "checkpoint"
    return Model(name, held.job.project_id, held.job.id, BASE, kind, step, "lora", held.job.created_at)  # type: ignore[arg-type]


def _resolved(given: Mapping[str, object]) -> dict[str, object]:
    return {"n_epochs": EPOCHS, "batch_size": 8, "learning_rate_multiplier": 1.0, **given}
