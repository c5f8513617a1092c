"""Whether the engines of a base compute a model as it was scored: asked until one responds.

    score     an engine's log-probabilities of the same tokens, under the new name and the base's, or what the model's
              head returns there; retried until an engine responds
    compare   where the effects differ they are scored once more (by another engine, if there is one); then the model
              is refused

Has no jobs: who scored the rows, and what follows from the verdict, is the caller's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.installation.context import Context
from service.installation.engine_key import bearer, engine_key
from service.recipes.base import Base
from service.storage import ObjectMissing
from workers.files.artifacts import ArtifactCorrupt, verify_stored
from workers.files.transfer import storage_retry
from workers.jobs.agreement import EngineRefused, Engines, EngineUnavailable
from workers.jobs.comparison import BASE_SHARE, Comparison, HeadComparison, Verdict, compare, compare_heads
from workers.trainer.protocol import HeadRow, ScoredRow

log = structlog.get_logger()
Check = Callable[[], Awaitable[NewEvent | JobError]]  # compares once; raises EngineRefused
CONTRADICTIONS = 2  # of engines, before the model is refused
RETRY_LIMIT_SECONDS = 10.0
ROWS_AT_ONCE = 16  # that an embedded engine scores; it computes those of one model together
SECOND_THOUGHT_SECONDS = 10.0  # a vLLM whose engine process died refuses every adapter for about 5 seconds


class EngineCheck:
    """The engines of `base`, asked about the stored model `name`; `subject` is whose it is, for the log.

    `waits` is called once, when no engine has responded at first. `imported`: a worker has scored the
    rows of an adapter that was trained elsewhere, for messages.
    """

    def __init__(
        self,
        ctx: Context,
        base: Base,
        name: str,
        subject: str,
        waits: Callable[[], Awaitable[None]] | None = None,
        *,
        imported: bool = False,
    ) -> None:
        self._ctx = ctx
        self._base = base
        self._name = name
        self._subject = subject
        self._waits = waits
        self._imported = imported
        ours = base.serving.engine == "embedded"
        at_once, generated = (ROWS_AT_ONCE, 0) if ours else (1, 1)
        headers = bearer(engine_key(ctx.settings))
        self._engines = Engines(ctx.engines[base.id], headers, at_once=at_once, generated=generated)

    async def tokens(self, rows: Sequence[ScoredRow]) -> NewEvent:
        """Compares log-probabilities of tokens. Returns what to say; raises JobError where an engine contradicts."""
        models, ids = [self._name, self._base.id], [row.ids for row in rows]
        seconds = [row.second for row in rows]

        async def check() -> NewEvent | JobError:
            scores: list[list[list[float]]] = await self._retrying()(self._engines.score, models, ids, seconds)
            served, served_base = scores
            found = compare(rows, served, served_base, self._base.dtype)
            if found.verdict.contradicts:
                return _disagreement(found, "worker" if self._imported else "trainer")
            return _agreement_event(found, imported=self._imported)

        return await self._verdict(check)

    async def head(self, rows: Sequence[HeadRow], *, vectors: bool) -> NewEvent:
        """The same of what the model's head returns: numbers, or one vector for each text."""
        ids, ask = [row.ids for row in rows], self._engines.embed if vectors else self._engines.classify

        async def check() -> NewEvent | JobError:
            served: list[list[float]] = await self._retrying()(ask, self._name, ids)
            found = compare_heads(rows, served, self._base.dtype, vectors=vectors)
            return _head_disagreement(found) if found.contradicts else _head_event(found)

        return await self._verdict(check)

    async def _verdict(self, check: Check) -> NewEvent:
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
            log.warning("announcement.contradicted", subject=self._subject, count=contradiction, code=failure.code)
        raise failure

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
        log.warning("announcement.waiting", subject=self._subject, reason=str(state.outcome.exception()))
        if self._waits is not None:
            await self._waits()
        try:
            await storage_retry(verify_stored)(self._ctx.storage, self._name)
        except (ArtifactCorrupt, ObjectMissing) as error:
            message = "The model's artifact is missing or damaged in storage, so that no engine can load it."
            raise JobError("artifact_unusable", message) from error


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


def _agreement_event(found: Comparison, *, imported: bool) -> NewEvent:
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
    if imported:
        return wording.imported_agrees(figures, decisive=found.verdict is Verdict.AGREES)
    return wording.agrees(figures) if found.verdict is Verdict.AGREES else wording.agrees_as_far_as_known(figures)


def _disagreement(found: Comparison, scorer: str) -> JobError:
    return JobError(
        "engine_disagrees",
        f"The engine does not compute what was trained: over {found.num_tokens} tokens the adapter moves a "
        f"log-probability by {found.served:.4g} in the engine and by {found.trained:.4g} in the {scorer}. "
        f"{_why(found)} The model was not announced.",
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
