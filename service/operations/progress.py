"""A worker's side of a job: claim, renew, record, publish, finish, fail. Every write carries the claim's attempt.

A write whose claim no longer stands raises LeaseLost and changes nothing: the job was cancelled, or another worker has
it. Nothing here touches storage: what a row points to was stored before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from service.db import events, files, jobs, models, snapshots
from service.db.connection import Transaction
from service.domain import event as wording
from service.domain import ids
from service.domain.errors import JobError, LeaseLost
from service.domain.event import NewEvent
from service.domain.file import File, Segment
from service.domain.job import Checkpoint, Claim, Publication, Snapshot, Status
from service.domain.model import Model
from service.installation.context import Context


@dataclass(frozen=True)
class StepRecord:
    """What one optimizer step did; `metrics` has OpenAI's names."""

    step: int
    trained_tokens: int
    metrics: Mapping[str, int | float]


async def claim_validation(ctx: Context, owner: str, bases: Sequence[str] | None = None) -> Claim | None:
    """Takes the oldest job of `bases` (None: any) whose files are not checked yet; None when there is none."""
    async with ctx.database.transaction() as tx:
        bases = list(ctx.catalogue.bases) if bases is None else bases
        job = await jobs.claim(tx, owner, ["validating_files"], bases, ctx.settings.lease_seconds)
        if job is None:
            return None
        await events.add(tx, job.id, [wording.validating(job.training_file, job.validation_file)])
        return Claim(job, owner)


async def claim_training(ctx: Context, owner: str, bases: Sequence[str], resident: str | None = None) -> Claim | None:
    """Takes the oldest job of `bases` that waits for a slot or lost its worker; None when there is none.

    None, too, when that job is for another base than the `resident` one: then its trainer must move out first.
    """
    async with ctx.database.transaction() as tx:
        statuses: list[Status] = ["queued", "running"]
        job = await jobs.claim(tx, owner, statuses, bases, ctx.settings.lease_seconds, resident=resident)
        if job is None:
            return None
        await events.add(tx, job.id, [wording.started()])
        return Claim(job, owner)


async def claim_announcement(ctx: Context, owner: str, bases: Sequence[str]) -> Claim | None:
    """Takes the oldest job of `bases` that has trained and is to be announced; None when there is none."""
    async with ctx.database.transaction() as tx:
        job = await jobs.claim(tx, owner, ["running"], bases, ctx.settings.lease_seconds, trained=True)
        return None if job is None else Claim(job, owner)


async def renew(ctx: Context, owner: str, claims: Sequence[Claim]) -> dict[str, int]:
    """Renews what this worker is working on; answers what it still holds of that: job id -> attempt.

    Only that: a job that it could not give back, because the database was away, must not be kept for ever.
    """
    async with ctx.database.transaction() as tx:
        return await jobs.renew(tx, owner, claims, ctx.settings.lease_seconds)


async def pauses_asked(ctx: Context, owner: str) -> dict[str, int]:
    """What this worker holds and shall bring to rest: job id -> attempt."""
    async with ctx.database.reading() as tx:
        return await jobs.pauses_asked(tx, owner)


async def pause(ctx: Context, claim: Claim, step: int) -> bool:
    """Gives a job back that was brought to rest at `step`, its snapshot and checkpoint stored.

    It is `paused` then; False when its user has resumed it meanwhile, and it goes on where a worker next claims it.
    """
    async with ctx.database.transaction() as tx:
        status = await jobs.rest(tx, claim)
        if status is None:
            raise LeaseLost(claim.job.id)
        if status == "paused":
            await events.add(tx, claim.job.id, [wording.paused(step)])
        tx.after_commit(lambda: ctx.queue.put(claim.job.id))
        return status == "paused"


async def release(ctx: Context, claim: Claim) -> None:
    """Gives the job back as it stands, for the next worker; nothing when the claim is gone already."""
    async with ctx.database.transaction() as tx:
        await jobs.write(tx, claim, jobs.released())
        tx.after_commit(lambda: ctx.queue.put(claim.job.id))


async def release_all(ctx: Context, owner: str) -> None:
    """Gives back whatever this worker still holds: it is stopping."""
    async with ctx.database.transaction() as tx:
        await jobs.release_all(tx, owner)


async def validated(
    ctx: Context, claim: Claim, *, hyperparameters: dict[str, Any], data_prefix: str, total_steps: int
) -> None:
    """The files are good and tokenised under `data_prefix`: the job waits for a slot."""
    values = {
        "status": "queued",
        "hyperparameters": hyperparameters,
        "data_prefix": data_prefix,
        "total_steps": total_steps,
        **jobs.released(),
    }
    async with ctx.database.transaction() as tx:
        await _write(tx, claim, values, [wording.validated()])
        tx.after_commit(lambda: ctx.queue.put(claim.job.id))


async def warn(ctx: Context, claim: Claim, warning: NewEvent) -> None:
    """Tells the user something that does not stop the job."""
    async with ctx.database.transaction() as tx:
        await _write(tx, claim, {}, [warning])


async def record_steps(ctx: Context, claim: Claim, steps: Sequence[StepRecord], seconds_per_step: float | None) -> None:
    """Progress and metrics of some steps, oldest first; replayed ones do not double."""
    values: dict[str, Any] = {"step": steps[-1].step, "trained_tokens": steps[-1].trained_tokens}
    if seconds_per_step is not None:
        values["seconds_per_step"] = seconds_per_step
    async with ctx.database.transaction() as tx:
        await _write(tx, claim, values, [wording.step(step.metrics) for step in steps])


async def record_snapshot(ctx: Context, claim: Claim, snapshot: Snapshot, keep: int = 2) -> list[Snapshot]:
    """Records a stored snapshot; answers the older ones that are no longer needed, whose objects may go."""
    async with ctx.database.transaction() as tx:
        await _write(tx, claim, {}, [])
        before = [old for old in await snapshots.of_job(tx, claim.job.id) if old.step != snapshot.step]
        await snapshots.add(tx, snapshot)
        superseded = before[keep - 1 :]
        await snapshots.remove(tx, claim.job.id, [old.step for old in superseded])
        return superseded


async def publish_checkpoint(ctx: Context, claim: Claim, model: Model, metrics: Mapping[str, int | float]) -> None:
    """Makes a stored artifact a callable checkpoint, and buries the oldest beyond those that are kept."""
    async with ctx.database.transaction() as tx:
        await _write(tx, claim, {}, [wording.checkpoint_created(model.step, model.name)])
        await models.add(tx, model)
        await models.add_checkpoint(tx, _checkpoint(model, metrics))
        await models.bury_checkpoints(tx, claim.job.id, ctx.settings.checkpoints_kept)


async def trained(ctx: Context, claim: Claim, publication: Publication) -> None:
    """The training is over and its artifact stored: the job needs no slot any more, and any worker may announce it."""
    async with ctx.database.transaction() as tx:
        await _write(tx, claim, {"publication": asdict(publication), **jobs.released()}, [])
        tx.after_commit(lambda: ctx.queue.put(claim.job.id))


async def finish(
    ctx: Context,
    claim: Claim,
    model: Model,
    metrics: Mapping[str, int | float],
    result: tuple[File, Sequence[Segment]],
    verdict: NewEvent | None = None,
) -> None:
    """Marks the job `succeeded`, makes its model's name public and its result file visible, all at once.

    `verdict` says what an engine thinks of the model.
    """
    values = {
        "status": "succeeded",
        "finished_at": int(time.time()),
        "fine_tuned_model": model.name,
        "result_file": result[0].id,
        **jobs.released(),
    }
    async with ctx.database.transaction() as tx:
        said = [wording.model_created(model.name), wording.succeeded()]
        await _write(tx, claim, values, said if verdict is None else [verdict, *said])
        await models.add(tx, model)
        await models.add_checkpoint(tx, _checkpoint(model, metrics))
        await models.bury_checkpoints(tx, claim.job.id, ctx.settings.checkpoints_kept)
        await files.add(tx, *result)


async def fail(ctx: Context, claim: Claim, error: JobError, data: Mapping[str, Any] | None = None) -> None:
    """Marks the job `failed`; `data` goes into the event (every bad line of a file, for example)."""
    values = {
        "status": "failed",
        "finished_at": int(time.time()),
        "error": {"code": error.code, "message": error.message, "param": error.param},
        **jobs.released(),
    }
    async with ctx.database.transaction() as tx:
        details = {"code": error.code, "param": error.param, **(data or {})}
        await _write(tx, claim, values, [wording.failed(error.message, details)])


async def charge_crash(ctx: Context, claim: Claim) -> int:
    """Counts a crash of the trainer in this job's turn; answers how many there are."""
    async with ctx.database.transaction() as tx:
        crashes = await jobs.count_crash(tx, claim)
        if crashes is None:
            raise LeaseLost(claim.job.id)
        return crashes


async def _write(tx: Transaction, claim: Claim, values: Mapping[str, Any], new_events: Sequence[NewEvent]) -> None:
    if not await jobs.write(tx, claim, values or {"attempt": claim.attempt}):
        raise LeaseLost(claim.job.id)
    if new_events:
        await events.add(tx, claim.job.id, new_events)


def _checkpoint(model: Model, metrics: Mapping[str, int | float]) -> Checkpoint:
    return Checkpoint(
        id=ids.checkpoint_id(),
        job_id=model.job_id,
        step=model.step,
        model_name=model.name,
        metrics=dict(metrics),
        created_at=model.created_at,
    )
