"""The third claim of a job: its artifact is stored and its slot free; an engine must agree before the name is public.

    fetch     the agreement rows, which the trainer has scored with the weights it saved
    compare   with what an engine computes of the same rows, once one responds (`engine_check`)
    warn      where the training taught little: such a job is announced all the same, since only its user knows what it
              is for; an event says so, with the numbers and what to try
    finish    one fenced transaction: model row, result file, `succeeded`

Needs no trainer and no slot. An engine that is unavailable delays the job and loses nothing. A cancelled job loses its
lease at the next beat; its artifact stays without a name. A pause that is requested this late has no effect.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.file import File, Segment
from service.domain.job import Job, Publication
from service.domain.model import Model
from service.installation.context import Context
from service.operations import lookups
from service.operations.progress import HeldJob
from service.recipes.base import Base
from service.recipes.objective import find_objective
from service.recipes.tasks import TASKS, Task
from service.storage import ObjectMissing
from workers.files.artifacts import ArtifactCorrupt
from workers.files.transfer import ObjectCorrupt
from workers.integrations.tracker import Tracker
from workers.jobs.agreement import fetch_agreement, fetch_head_agreement
from workers.jobs.engine_check import EngineCheck
from workers.jobs.result_file import store_reports, store_result
from workers.trainer.protocol import HeadRow, ScoredRow

log = structlog.get_logger()
# Of what a training taught:
SHARE = 10  # the first and the last tenth of the steps are compared: single steps are noisy
FEWEST_STEPS = 4  # below, the examples of two steps differ by more than a training changes
RISEN = 1.02  # end / start of a loss that rose, beyond noise
UNCHANGED = 0.98  # and of one that did not fall
USELESS_ACCURACY = 0.1  # of trained tokens: right words by chance are about as frequent
BATCH = 500  # events that are read at a time
LOSS, ACCURACY = "train_loss", "train_mean_token_accuracy"


class JobAnnouncement:
    """One claim of one trained job."""

    def __init__(self, held: HeldJob, base: Base, tracker: Tracker) -> None:
        assert held.job.publication is not None
        self._ctx = held.ctx
        self._held = held
        self._base = base
        self._tracker = tracker
        self._publication = Publication(**held.job.publication)

    async def run(self) -> None:
        """Announces the model or fails the job. Raises LeaseLost and the errors of unavailable parts."""
        log.info("announcement.claimed", job_id=self._held.job.id, attempt=self._held.attempt)
        try:
            await self._tracker.start()
            await self._announce()
        except JobError as error:
            await self._held.fail(error)
            log.info("job.failed", job_id=self._held.job.id, code=error.code)
        finally:
            await self._tracker.end()

    async def _announce(self) -> None:
        began = time.monotonic()
        verdict = await self._verdict()
        learning = await _learning_of(self._ctx, self._held.job)
        if learning is not None and (warning := learning.event()) is not None:
            await self._held.warn(warning)
        result = await store_result(self._ctx, self._held.job)
        reports = await self._reports()
        await self._held.finish(
            self._model(),
            self._publication.metrics,
            result,
            verdict,
            reports=reports,
            announce_seconds=time.monotonic() - began,
        )
        log.info("job.succeeded", job_id=self._held.job.id)

    async def _verdict(self) -> NewEvent:
        """The event that says how an engine compares. Raises JobError when it contradicts the trainer."""
        if not self._ctx.engines[self._base.id]:
            return wording.not_compared()
        engines = EngineCheck(self._ctx, self._base, self._publication.name, self._held.job.id, self._waits)
        if self._task.has_head:
            return await engines.head(await self._head_agreement(), vectors=self._task.name == "embed")
        return await engines.tokens(await self._agreement())

    async def _waits(self) -> None:
        await self._held.warn(wording.waiting_for_engine())

    async def _agreement(self) -> list[ScoredRow]:
        stored = self._publication
        with agreement_errors():
            return await fetch_agreement(self._ctx.storage, stored.sample, stored.sample_sha256)

    async def _head_agreement(self) -> list[HeadRow]:
        stored = self._publication
        with agreement_errors():
            return await fetch_head_agreement(self._ctx.storage, stored.sample, stored.sample_sha256)

    async def _reports(self) -> list[tuple[File, list[Segment]]]:
        """The tables of a model with a head. Raises JobError where its artifact is gone."""
        if not self._task.has_head:
            return []
        try:
            return await store_reports(self._ctx, self._held.job, self._publication.name)
        except (ArtifactCorrupt, ObjectMissing) as error:
            raise JobError("artifact_unusable", "The model's artifact is missing or damaged in storage.") from error

    @property
    def _task(self) -> Task:
        return TASKS[find_objective(self._held.job.objective).task]

    def _model(self) -> Model:
        job = self._held.job
        return Model(
            name=self._publication.name,
            project_id=job.project_id,
            job_id=job.id,
            base=job.base,
            kind="final",
            step=self._publication.step,
            tuning=job.tuning["type"],
            created_at=int(time.time()),
            task=self._task.name,
        )


@contextmanager
def agreement_errors() -> Iterator[None]:
    """Around whatever fetches the rows. Raises JobError."""
    try:
        yield
    except (ObjectCorrupt, ObjectMissing) as error:
        message = "The rows that the trained model is compared on are missing or damaged in storage."
        raise JobError("agreement_unusable", message) from error


async def _learning_of(ctx: Context, job: Job) -> "Learning | None":
    """From the job's own events, read in batches. None for a job of so few steps that nothing can be said."""
    num_steps = job.total_steps or 0
    if num_steps < FEWEST_STEPS:
        return None
    window = max(1, num_steps // SHARE)
    start, end, accuracy = _Mean(), _Mean(), _Mean()
    sequence = 0
    while batch := await lookups.metrics_since(ctx, job.id, sequence, BATCH):
        for _, metrics in batch:
            if metrics["step"] <= window:
                start.add(metrics.get(LOSS))
            if metrics["step"] > num_steps - window:
                end.add(metrics.get(LOSS))
                accuracy.add(metrics.get(ACCURACY))
        sequence, _ = batch[-1]
    if start.value is None or end.value is None:
        return None
    return Learning(num_steps, start.value, end.value, accuracy.value)


@dataclass(frozen=True)
class Learning:
    """Whether a training learnt anything: means over its first and its last steps.

    The accuracy is of objectives that predict tokens.
    """

    num_steps: int
    loss_at_start: float
    loss_at_end: float
    accuracy_at_end: float | None

    def event(self) -> NewEvent | None:
        """What the user should know, or None for a job that has learnt."""
        start, end, accuracy = self.loss_at_start, self.loss_at_end, self.accuracy_at_end
        if end > RISEN * start:
            return wording.loss_rose(start, end, self.num_steps)
        useless = accuracy is not None and accuracy < USELESS_ACCURACY
        if end > UNCHANGED * start or useless:
            return wording.learnt_little(start, end, accuracy, self.num_steps)
        return None


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None
