"""The third claim of a job: its artifact is stored and its slot free; an engine must agree before the name is public.

    fetch     the agreement rows, which the trainer has scored with the weights it saved
    compare   with what an engine computes of the same rows, once one responds (`engine_check`)
    finish    one fenced transaction: model row, result file, `succeeded`

Needs no trainer and no slot. An engine that is unavailable delays the job and loses nothing. A cancelled job loses its
lease at the next beat; its artifact stays without a name. A pause that is requested this late has no effect.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.file import File, Segment
from service.domain.job import Publication
from service.domain.model import Model
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
from workers.jobs.learning import learning_of
from workers.jobs.result_file import store_reports, store_result
from workers.trainer.protocol import HeadRow, ScoredRow

log = structlog.get_logger()


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
        learning = await learning_of(self._ctx, self._held.job)
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
