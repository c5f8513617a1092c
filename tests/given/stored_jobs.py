"""Jobs at any point of their way, written into the database as a worker or time would have brought them there.

The database is used directly because no operation makes what these tests begin with: a job without its file's bytes, a
lease that is over, a status that only a worker reaches.
"""

import time
from collections.abc import Sequence
from typing import Any

from service.db import bases, events, files, jobs
from service.db.bases import BaseRecord
from service.domain import event as wording
from service.domain import ids
from service.domain.event import Event
from service.domain.file import RESULT_PURPOSE, File, Segment
from service.domain.job import FINAL, Job, Status
from service.domain.model import Model
from service.installation.context import Context
from service.operations import lookups
from service.operations.keys import Caller
from service.operations.progress import HeldJob, StepRecord
from tests.given.stored_files import a_file
from tests.given.work import KINDS, add_work, claim_training, remove_work, set_work

BASES = ["luthier-tiny"]


async def add_job(
    ctx: Context,
    caller: Caller,
    status: Status = "validating_files",
    base: str = "luthier-tiny",
    alias: str | None = None,
) -> Job:
    """A job of a file whose bytes are nowhere."""
    file = a_file(caller)
    job = Job(
        id=ids.job_id(),
        project_id=caller.project_id,
        base=base,
        alias=alias,
        training_file=file.id,
        validation_file=None,
        objective="supervised",
        tuning={"type": "lora", "lora": {"r": 4}},
        hyperparameters={"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0},
        seed=1,
        suffix=None,
        status=status,
        created_at=1,
    )
    async with ctx.database.transaction() as tx:
        await files.add(tx, file, [Segment(f"files/{file.id}/0", 3, "0" * 64)])
        await jobs.add(tx, job)
        await add_work(tx, job)
    return job


async def claimed(ctx: Context, caller: Caller, owner: str = "one", alias: str | None = None) -> HeldJob:
    """A new job, held by `owner` for training."""
    await add_job(ctx, caller, "queued", alias=alias)
    claim = await claim_training(ctx, owner, BASES)
    assert claim is not None
    return claim


async def state(ctx: Context, id: str) -> Job:
    """The job as it stands, of any project."""
    job = await lookups.find_job(ctx, id)
    assert job is not None
    return job


async def stored_events(ctx: Context, id: str) -> list[Event]:
    """Every event of the job, oldest first."""
    async with ctx.database.reading() as tx:
        return await events.since(tx, id, 0, 10_000)


async def messages(ctx: Context, id: str) -> list[str]:
    """Oldest first."""
    return [event.message for event in await stored_events(ctx, id)]


def a_model(claim: HeldJob, step: int | None = None) -> Model:
    suffix = "" if step is None else f":ckpt-step-{step}"
    name = f"ft:luthier-tiny:luthier::{ids.publication_id()}{suffix}"
    kind = "final" if step is None else "checkpoint"
    job = claim.job
    return Model(name, job.project_id, job.id, job.base, kind, step or 99, "lora", created_at=1)  # type: ignore[arg-type]


def a_result(claim: HeldJob) -> tuple[File, Sequence[Segment]]:
    id = ids.file_id()
    file = File(id, claim.job.project_id, RESULT_PURPOSE, "step_metrics.csv", "text/csv", 1, created_at=1)
    return file, [Segment(f"files/{id}/0", 1, "0" * 64)]


def steps(*numbers: int) -> list[StepRecord]:
    return [StepRecord(n, 10 * n, {"step": n, "total_steps": 9, "train_loss": 1.0}) for n in numbers]


async def expire(ctx: Context, id: str) -> None:
    """Ends the lease of whoever holds the job."""
    await set_work(ctx, id, lease_expires_at=0.0)


async def move(ctx: Context, id: str, expected: Status, **values: Any) -> None:
    """Brings a job to where a worker would have brought it, and with it what is still to be done for it."""
    async with ctx.database.transaction() as tx:
        assert await jobs.change(tx, id, expected, values)
    status = values.get("status", expected)
    if status in FINAL:
        await remove_work(ctx, id)
    elif "status" in values:
        await set_work(ctx, id, kind=KINDS[status].name, paused=status == "paused")


async def end_long_ago(ctx: Context, id: str) -> None:
    """The job has ended so long ago that its leavings may be swept."""
    await move(ctx, id, (await state(ctx, id)).status, finished_at=int(time.time()) - 2 * jobs.SETTLED_SECONDS)


async def tell(ctx: Context, id: str, *numbers: int) -> None:
    """What a worker writes with one heartbeat."""
    async with ctx.database.transaction() as tx:
        await events.add(tx, id, [wording.warning(f"{number}", key=f"{number}") for number in numbers])


async def add_measured(
    ctx: Context, caller: Caller, base: str, seconds: int, *, steps: int = 10, **values: Any
) -> None:
    """A job that has succeeded: 50 tokens a step, which took all of its `seconds`."""
    job = await add_job(ctx, caller, "running", base)
    measured = {
        "step": steps,
        "total_steps": steps,
        "trained_tokens": 50 * steps,
        "seconds_per_step": seconds / steps,
        "started_at": 1000,
        "finished_at": 1000 + seconds,
    }
    await move(ctx, job.id, "running", status="succeeded", **(measured | values))


async def note_announcement(ctx: Context, base: str, seconds: float) -> None:
    """The base, whose last model took so long to be announced."""
    async with ctx.database.transaction() as tx:
        await bases.add(tx, BaseRecord(base, "folder", "1", {}))
        await bases.note_announcement(tx, base, seconds)
