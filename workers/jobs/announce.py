"""The third claim of a job: its artifact is stored and its slot free; an engine must agree before the name is public.

    fetch     the agreement rows, which the trainer has scored with the weights it saved
    score     an engine's log-probabilities of the same tokens, under the new name and the base's, or what the model's
              head returns there; retried until an engine responds
    compare   where the effects differ they are scored once more (by another engine, if there is one); then the job
              fails
    finish    one fenced transaction: model row, result file, `succeeded`

Needs no trainer and no slot. An engine that is unavailable delays the job and loses nothing. A cancelled job loses its
lease at the next beat; its artifact stays without a name. A pause that is requested this late has no effect.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.file import File, Segment
from service.domain.job import Publication
from service.domain.model import Model
from service.installation.engine_key import bearer, engine_key
from service.operations.progress import HeldJob
from service.recipes.base import Base
from service.recipes.objective import find_objective
from service.recipes.tasks import TASKS, Task
from service.storage import ObjectMissing
from workers.files.artifacts import ArtifactCorrupt, verify_stored
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.integrations.tracker import Tracker
from workers.jobs.agreement import (
    EngineRefused,
    Engines,
    EngineUnavailable,
    fetch_agreement,
    fetch_head_agreement,
)
from workers.jobs.comparison import BASE_SHARE, Comparison, Verdict, compare
from workers.jobs.head_comparison import HeadComparison, compare_heads
from workers.jobs.learning import learning_of
from workers.jobs.result_file import store_reports, store_result
from workers.trainer.protocol import HeadRow, ScoredRow

log = structlog.get_logger()
Check = Callable[[], Awaitable[NewEvent | JobError]]  # compares once; raises EngineRefused
CONTRADICTIONS = 2  # of engines, before the job fails
RETRY_LIMIT_SECONDS = 10.0
SECOND_THOUGHT_SECONDS = 10.0  # a vLLM whose engine process died refuses every adapter for about 5 seconds


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
        urls = self._ctx.engines[self._base.id]
        if not urls:
            return wording.not_compared()
        engines = Engines(urls, bearer(engine_key(self._ctx.settings)))
        check = await (self._head_check(engines) if self._task.has_head else self._token_check(engines))
        for contradiction in range(1, CONTRADICTIONS + 1):
            try:
                found = await check()
            except EngineRefused as refusal:
                failure = JobError("engine_refuses", f"The engine cannot serve the model: {refusal}")
                if contradiction < CONTRADICTIONS:
                    await asyncio.sleep(SECOND_THOUGHT_SECONDS)
            else:
                if not isinstance(found, JobError):
                    return found
                failure = found
            log.warning("announcement.contradicted", job_id=self._held.job.id, count=contradiction, code=failure.code)
        raise failure

    async def _token_check(self, engines: Engines) -> Check:
        """Compares the log-probabilities of tokens."""
        rows = await self._agreement()
        models, ids = [self._publication.name, self._base.id], [row.ids for row in rows]

        async def check() -> NewEvent | JobError:
            scores: list[list[list[float]]] = await self._retrying()(engines.score, models, ids)
            served, served_base = scores
            found = compare(rows, served, served_base, self._base.dtype)
            return _disagreement(found) if found.verdict.contradicts else _agreement_event(found)

        return check

    async def _head_check(self, engines: Engines) -> Check:
        """Compares what the model's head returns."""
        rows = await self._head_agreement()
        ids = [row.ids for row in rows]

        async def check() -> NewEvent | JobError:
            served: list[list[float]] = await self._retrying()(engines.classify, self._publication.name, ids)
            found = compare_heads(rows, served, self._base.dtype)
            return _head_disagreement(found) if found.contradicts else _head_event(found)

        return check

    def _retrying(self) -> AsyncRetrying:
        """Calls until an engine is available."""
        return AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            wait=wait_random_exponential(multiplier=0.2, max=RETRY_LIMIT_SECONDS),
            before_sleep=self._wait,
        )

    async def _wait(self, state: RetryCallState) -> None:
        """Called before each pause. At the first one it warns the user, and checks that the artifact is intact."""
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

    async def _agreement(self) -> list[ScoredRow]:
        stored = self._publication
        with _agreement_errors():
            return await fetch_agreement(self._ctx.storage, stored.sample, stored.sample_sha256)

    async def _head_agreement(self) -> list[HeadRow]:
        stored = self._publication
        with _agreement_errors():
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
def _agreement_errors() -> Iterator[None]:
    try:
        yield
    except (ObjectCorrupt, ObjectMissing) as error:
        message = "The rows that the trained model is compared on are missing or damaged in storage."
        raise JobError("agreement_unusable", message) from error


def _head_event(found: HeadComparison) -> NewEvent:
    figures = {"rows": found.num_rows, "difference": found.difference, "effect": found.effect}
    return wording.head_agrees(figures, decisive=found.decisive)


def _head_disagreement(found: HeadComparison) -> JobError:
    return JobError(
        "engine_disagrees",
        f"The engine does not compute what was trained: over {found.num_rows} texts its outputs differ from the "
        f"trainer's by up to {found.difference:.3g} times what is tolerated; the tuning alone changes them by "
        f"{found.effect:.3g} times that. The model was not announced.",
    )


def _agreement_event(found: Comparison) -> NewEvent:
    figures = {
        "tokens": found.num_tokens,
        "trained_effect": found.trained,
        "served_effect": found.served,
        "slope": found.slope,
        "slope_error": found.slope_error,
        "residual": found.residual,
        "residual_allowed": found.residual_allowed,
        "base_difference": found.base_difference,
    }
    return wording.agrees(figures) if found.verdict is Verdict.AGREES else wording.agrees_as_far_as_known(figures)


def _disagreement(found: Comparison) -> JobError:
    return JobError(
        "engine_disagrees",
        f"The engine does not compute what was trained: over {found.num_tokens} tokens the adapter moves a "
        f"log-probability by {found.served:.4g} in the engine and by {found.trained:.4g} in the trainer. {_why(found)} "
        "The model was not announced.",
    )


def _why(found: Comparison) -> str:
    match found.verdict:
        case Verdict.BASE_DIFFERS:
            return (
                f"The base itself differs by {found.base_difference:.4g} per token, which is {found.base_share:.2g} of "
                f"the variance of its log-probabilities, and {BASE_SHARE:.2g} is tolerated: the engine has other "
                "weights."
            )
        case Verdict.STRENGTH_DIFFERS:
            return (
                f"The slope between both is {found.slope:.3f}, and 1 +- {found.slope_allowed:.3f} is tolerated: the "
                "engine applies another adapter, none, or this one at another strength."
            )
        case _:
            return (
                f"Their difference is {found.residual:.3g} times the noise of the base's numbers, and "
                f"{found.residual_allowed:.3g} is tolerated: the engine applies the adapter to other modules, or "
                "a part of it."
            )
