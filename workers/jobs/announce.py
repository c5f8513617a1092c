"""The third claim of a job: its artifact is stored and its slot free; an engine must agree before the name is public.

    sample    the rows that the trainer has scored with the weights it saved
    ask       an engine, under the new name, for the same tokens' log-probabilities; until one can answer
    compare   beyond the tolerance it is asked once more (another engine, where there is one); then the job fails
    finish    one fenced transaction: model row, result file, `succeeded`

Needs no trainer and no slot. What was trained is never lost here: an engine that is away only delays. A cancelled job's
lease is lost at the next beat, and its artifact is nobody's. A pause that was asked for too late changes nothing.
"""

import asyncio
import time

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.job import Publication
from service.domain.model import Model
from service.operations.progress import HeldJob
from service.recipes.base import Base
from service.storage import ObjectMissing
from workers.files.artifacts import ArtifactCorrupt, verify_stored
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.integrations.tracker import Tracker
from workers.jobs.agreement import (
    TOLERANCE,
    Comparison,
    EngineRefused,
    Engines,
    EngineUnavailable,
    compare,
    fetch_agreement,
)
from workers.jobs.result_file import store_result
from workers.trainer.protocol import ScoredRow

log = structlog.get_logger()
QUESTIONS = 2  # how often engines may contradict before the job fails
LONGEST_PAUSE_SECONDS = 10.0
SECOND_THOUGHT_SECONDS = 10.0  # a vLLM whose engine died refuses every adapter until it notices, 5 seconds later


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
        """Announces the model or fails the job. Raises LeaseLost and the errors of parts that are away."""
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
        verdict = await self._verdict()
        result = await store_result(self._ctx, self._held.job)
        await self._held.finish(self._model(), self._publication.metrics, result, verdict)
        log.info("job.succeeded", job_id=self._held.job.id)

    async def _verdict(self) -> NewEvent:
        """What to tell of the engine's opinion. Raises JobError when it contradicts the trainer."""
        urls = self._ctx.engines[self._base.id]
        if not urls:
            return wording.not_compared()
        rows, engines = await self._sample(), Engines(urls)
        for question in range(1, QUESTIONS + 1):
            try:
                found = await self._comparison(engines, rows)
            except EngineRefused as refusal:
                failure = JobError("engine_refuses", f"The engine cannot serve the model: {refusal}")
                if question < QUESTIONS:
                    await asyncio.sleep(SECOND_THOUGHT_SECONDS)
            else:
                if found.mean <= TOLERANCE[self._base.dtype]:
                    return wording.agrees(found.mean, found.largest, found.num_tokens)
                failure = self._disagreement(found)
            log.warning("announcement.contradicted", job_id=self._held.job.id, question=question, code=failure.code)
        raise failure

    async def _comparison(self, engines: Engines, rows: list[ScoredRow]) -> Comparison:
        """Asks until an engine can answer. Raises EngineRefused."""
        asking = AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_SECONDS),
            before_sleep=self._wait,
        )
        served: list[list[float]] = await asking(engines.score, self._publication.name, [row.ids for row in rows])
        return compare(rows, served)

    async def _wait(self, state: RetryCallState) -> None:
        """Before each pause. Says once that the model waits; whether its artifact is the reason is looked up once."""
        assert state.outcome is not None
        if state.attempt_number > 1:
            return
        log.warning("announcement.waiting", job_id=self._held.job.id, reason=str(state.outcome.exception()))
        await self._held.warn(wording.waiting_for_engine())
        try:
            await storage_retry(verify_stored)(self._ctx.storage, self._publication.name)
        except (ArtifactCorrupt, ObjectMissing) as error:
            message = "The model's artifact is missing or damaged in storage, so that no engine can load it."
            raise JobError("artifact_unusable", message) from error

    async def _sample(self) -> list[ScoredRow]:
        stored = self._publication
        try:
            return await fetch_agreement(self._ctx.storage, stored.sample, stored.sample_sha256)
        except (ObjectCorrupt, ObjectMissing) as error:
            message = "What the trained model was to be compared with is missing or damaged in storage."
            raise JobError("sample_unusable", message) from error

    def _disagreement(self, found: Comparison) -> JobError:
        return JobError(
            "engine_disagrees",
            "The engine does not compute what was trained: on a sample of "
            f"{found.num_tokens} tokens its mean log-probability is {found.served:.4f} and the trained model's "
            f"{found.trained:.4f}; they differ by {found.mean:.2g} per token, where "
            f"{TOLERANCE[self._base.dtype]:.2g} is tolerated. The model was not announced.",
        )

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
        )
