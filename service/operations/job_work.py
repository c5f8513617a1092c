"""The three kinds of work of a fine-tuning job: its files are validated, it trains, its model is announced.

One row of work follows a job from kind to kind and keeps its age, so that `attempt` only ever grows. How each is done
is in `workers.jobs`.
"""

import time
from collections.abc import Awaitable, Callable

from service.db import events, jobs
from service.db.connection import Transaction
from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.job import ACTIVE, Job
from service.domain.work import Work
from service.work.kinds import Kind, register

SERVICE_ERROR = "The job failed because of an error in the service, not in its data; the worker's log says more."


async def fail(tx: Transaction, job: Job, error: JobError, data: dict[str, object] | None = None) -> None:
    """Marks an active job `failed`, with a last event. The caller removes its work."""
    values = {
        "status": "failed",
        "finished_at": int(time.time()),
        "error": {"code": error.code, "message": error.message, "param": error.param},
    }
    if await jobs.change(tx, job.id, job.status, values):
        details = {"code": error.code, "param": error.param, **(data or {})}
        await events.add(tx, job.id, [wording.failed(error.message, details)])


async def _begin_validation(tx: Transaction, work: Work) -> Job | None:
    job = await jobs.find(tx, None, work.subject_id, lock=True)
    if job is None or job.status != "validating_files":
        return None
    await events.add(tx, job.id, [wording.validating(job.training_file, job.validation_file)])
    return job


async def _begin_training(tx: Transaction, work: Work) -> Job | None:
    job = await jobs.find(tx, None, work.subject_id, lock=True)
    if job is None or job.status not in ("queued", "running"):
        return None
    if job.status == "queued":
        started_at = job.started_at if job.started_at is not None else int(time.time())
        await jobs.change(tx, job.id, "queued", {"status": "running", "started_at": started_at})
        job = await jobs.find(tx, None, job.id)
        assert job is not None
    await events.add(tx, job.id, [wording.started()])
    return job


async def _begin_announcement(tx: Transaction, work: Work) -> Job | None:
    job = await jobs.find(tx, None, work.subject_id, lock=True)
    return job if job is not None and job.status == "running" and job.publication is not None else None


def _abandon(error_of: Callable[[Job, int], JobError]) -> Callable[[Transaction, Work, int], Awaitable[None]]:
    """Fails the job with the error that `error_of` returns for it and its crashes."""

    async def abandon(tx: Transaction, work: Work, crashes: int) -> None:
        job = await jobs.find(tx, None, work.subject_id, lock=True)
        if job is not None and job.status in ACTIVE:
            await fail(tx, job, error_of(job, crashes) if crashes else JobError("server_error", SERVICE_ERROR))

    return abandon


def _validation_crashed(job: Job, crashes: int) -> JobError:
    files = f"the training file {job.training_file}"
    if job.validation_file is not None:
        files += f" and the validation file {job.validation_file}"
    return JobError(
        "worker_crashed",
        f"The job was stopped because its worker ended {crashes} times while it checked {files}. Check them for "
        "unusually long or damaged lines, remove those or split the file, and create the job again.",
        "training_file",
    )


def _training_crashed(job: Job, crashes: int) -> JobError:
    return JobError(
        "worker_crashed",
        f"The job was stopped because its worker ended {crashes} times while training it, at most at step {job.step}. "
        "A smaller batch_size or shorter examples may help; the worker's log says more.",
    )


def _announcement_crashed(job: Job, crashes: int) -> JobError:
    return JobError(
        "worker_crashed",
        f"The job was stopped because its worker ended {crashes} times while it announced the trained model. "
        "The worker's log says more; please create the job again.",
    )


VALIDATE = register(Kind("validate", _begin_validation, _abandon(_validation_crashed)))
TRAIN = register(Kind("train", _begin_training, _abandon(_training_crashed)))
ANNOUNCE = register(Kind("announce", _begin_announcement, _abandon(_announcement_crashed)))
