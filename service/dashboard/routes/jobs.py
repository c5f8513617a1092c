"""The list of jobs, a job, and what may be done to it."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from markupsafe import Markup

from service.api.schemas.job_objects import Progress
from service.api.web.deps import ContextDep
from service.dashboard.web.charts import Sparkline, sparkline
from service.dashboard.web.fragments import changed, live
from service.dashboard.web.messages import Message, back
from service.dashboard.web.pages import UI, page
from service.dashboard.web.settings import Setting, settings_of
from service.dashboard.web.visitors import Posted, Visitor
from service.domain.errors import IllegalTransition, NotFound
from service.domain.event import Event
from service.domain.job import FINAL, Job, named_after
from service.installation.context import Context
from service.operations import curves, files, jobs, model_aliases
from service.operations.curves import Curve
from service.operations.jobs import CheckpointView, JobView
from service.operations.keys import Caller
from service.operations.sessions import SignedIn

router = APIRouter(prefix="/jobs")
PAGE_JOBS = 25
PAGE_EVENTS = 100
PAGE_CHECKPOINTS = 100
ALIASES_SHOWN = 100
WORKING = ("validating_files", "queued", "running")  # statuses that change by themselves
LIST, STATE, CHECKPOINTS = "job-list", "job-state", "job-checkpoints"


@dataclass(frozen=True)
class JobRow:
    """A job as pages show it."""

    job: Job
    progress: Progress
    sparkline: Sparkline | None = None

    @property
    def title(self) -> str:
        """What its owner calls it, or its id."""
        return self.job.suffix or self.job.id

    @property
    def origin(self) -> str:
        """The base or the model that it continues."""
        return self.job.parent_model or named_after(self.job)

    @property
    def owner(self) -> str:
        """The name of the key that created it; empty where nobody recorded it."""
        return self.job.key_name or self.job.key_id or ""

    @property
    def method(self) -> str:
        return f"{self.job.objective} · {self.job.tuning['type']}"

    @property
    def status(self) -> str:
        """The job's status, as a word: one that will pause is `pausing`."""
        pausing = self.job.status == "running" and self.job.pause_requested_at is not None
        return "pausing" if pausing else self.job.status.replace("_", " ")

    @property
    def is_final(self) -> bool:
        return self.job.status in FINAL

    @property
    def has_curve(self) -> bool:
        """Whether there are steps to draw, or may be."""
        return bool(self.job.step) or not self.is_final

    @classmethod
    def of(cls, view: JobView, losses: Sequence[float] = ()) -> "JobRow":
        return cls(view.job, Progress.of(view), sparkline(losses))


@dataclass(frozen=True)
class Agreement:
    """How far the engine and the trainer agree about the model, in nats per token."""

    served: float
    trained: float
    tokens: int


@router.get("")
async def listed(request: Request, ctx: ContextDep, visitor: Visitor, after: str = "") -> Response:
    """The project's jobs, newest first."""
    fragment, _ = await _list(request, ctx, visitor, after)
    return page(request, "jobs.html", visitor, {"list": Markup(fragment), "after": after})


@router.get("/rows")
async def rows(request: Request, ctx: ContextDep, visitor: Visitor, after: str = "", have: str = "") -> Response:
    """The list alone, if it has changed."""
    return changed(await _list(request, ctx, visitor, after), have)


@router.get("/{id}")
async def shown(request: Request, ctx: ContextDep, visitor: Visitor, id: str) -> Response:
    """One job."""
    fragment, _ = await _state(request, ctx, visitor, id)
    view = await jobs.retrieve(ctx, visitor.caller, id)
    checkpoints, _ = await _checkpoints(request, ctx, visitor, id)
    values = {
        "row": JobRow.of(view),
        "state": Markup(fragment),
        "checkpoints": Markup(checkpoints),
        "events": await jobs.messages(ctx, visitor.caller, id, PAGE_EVENTS),
        "settings": settings_of(view.job),
        "files": await _files(ctx, visitor.caller, view.job),
    }
    return page(request, "job.html", visitor, values)


@router.get("/{id}/state")
async def state(request: Request, ctx: ContextDep, visitor: Visitor, id: str, have: str = "") -> Response:
    """What changes by itself of a job, if it has changed."""
    return changed(await _state(request, ctx, visitor, id), have)


@router.get("/{id}/checkpoints")
async def checkpoints(request: Request, ctx: ContextDep, visitor: Visitor, id: str, have: str = "") -> Response:
    """The models that the job has published, if they have changed."""
    return changed(await _checkpoints(request, ctx, visitor, id), have)


@router.get("/{id}/curve")
async def curve(ctx: ContextDep, visitor: Visitor, id: str) -> JSONResponse:
    """The job's metrics by column, and the event that a stream of the next ones begins behind."""
    return JSONResponse(columns(await curves.curve(ctx, visitor.caller, id)))


@router.post("/{id}/cancel")
async def cancel(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted, id: str) -> Response:
    """Ends the job."""
    return await _done(request, ctx, visitor, id, jobs.cancel)


@router.post("/{id}/pause")
async def pause(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted, id: str) -> Response:
    """Asks it to pause."""
    return await _done(request, ctx, visitor, id, jobs.pause)


@router.post("/{id}/resume")
async def resume(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted, id: str) -> Response:
    """Lets it continue."""
    return await _done(request, ctx, visitor, id, jobs.resume)


def columns(found: Curve) -> dict[str, object]:
    """`steps`, and one list per metric with null where a step has none."""
    names = sorted({name for point in found.points for name in point} - {"step", "total_steps"})
    return {
        "job": found.job.id,
        "title": found.job.suffix or found.job.id,
        "steps": [point["step"] for point in found.points],
        "series": {name: [point.get(name) for point in found.points] for name in names},
        "total_steps": found.job.total_steps,
        "after": found.last_event,
    }


async def _list(request: Request, ctx: Context, visitor: SignedIn, after: str) -> tuple[str, str]:
    found = await jobs.page(ctx, visitor.caller, after=after or None, limit=PAGE_JOBS)
    losses = await curves.sparklines(ctx, visitor.caller, [view.job for view in found.items])
    shown = [JobRow.of(view, losses.get(view.job.id, ())) for view in found.items]
    values = {"rows": shown, "has_more": found.has_more, "after": after}
    url = f"{UI}/jobs/rows?after={after}"
    busy = any(row.job.status in WORKING for row in shown)
    return live(request, "jobs_rows.html", visitor, values, id=LIST, url=url, busy=busy)


async def _state(request: Request, ctx: Context, visitor: SignedIn, id: str, problem: str = "") -> tuple[str, str]:
    view = await jobs.retrieve(ctx, visitor.caller, id)
    agreement = None
    if view.job.fine_tuned_model is not None:
        agreement = _agreement(await jobs.messages(ctx, visitor.caller, id, PAGE_EVENTS))
    values: Mapping[str, object] = {"row": JobRow.of(view), "agreement": agreement, "problem": problem}
    busy = view.job.status in WORKING
    return live(request, "job_state.html", visitor, values, id=STATE, url=f"{UI}/jobs/{id}/state", busy=busy)


async def _checkpoints(request: Request, ctx: Context, visitor: SignedIn, id: str) -> tuple[str, str]:
    view = await jobs.retrieve(ctx, visitor.caller, id)
    found = await jobs.checkpoint_page(ctx, visitor.caller, id, after=None, limit=PAGE_CHECKPOINTS)
    names: list[str] = []
    if found.items:
        aliases = await model_aliases.page(ctx, visitor.caller, after=None, limit=ALIASES_SHOWN)
        names = [alias.name for alias in aliases.items]
    values = {"checkpoints": [_checkpoint(checkpoint) for checkpoint in found.items], "names": names}
    busy = view.job.status in WORKING
    url = f"{UI}/jobs/{id}/checkpoints"
    return live(request, "job_checkpoints.html", visitor, values, id=CHECKPOINTS, url=url, busy=busy)


def _checkpoint(view: CheckpointView) -> dict[str, object]:
    metrics = view.checkpoint.metrics
    losses = {name: metrics[name] for name in ("train_loss", "full_valid_loss", "valid_loss") if name in metrics}
    return {"step": view.checkpoint.step, "model": view.checkpoint.model_name, "losses": losses}


def _agreement(newest: Sequence[Event]) -> Agreement | None:
    """The figures of the announcement, which the event of it carries."""
    for event in newest:
        if {"served_effect", "trained_effect", "tokens"} <= event.data.keys():
            return Agreement(event.data["served_effect"], event.data["trained_effect"], event.data["tokens"])
    return None


async def _files(ctx: Context, caller: Caller, job: Job) -> list[tuple[str, str, str | None]]:
    """What each of the job's files is for, its id, and its name; None where it was deleted."""
    named = [("Training file", job.training_file), ("Validation file", job.validation_file)]
    found: list[tuple[str, str, str | None]] = []
    for label, id in named:
        if id is not None:
            try:
                found.append((label, id, (await files.retrieve(ctx, caller, id)).filename))
            except NotFound:
                found.append((label, id, None))
    return found


Operation = Callable[[Context, Caller, str], Coroutine[Any, Any, JobView]]


async def _done(request: Request, ctx: Context, visitor: SignedIn, id: str, operation: Operation) -> Response:
    """The job's new state: as a fragment for a script, as the whole page without one."""
    problem = ""
    try:
        await operation(ctx, visitor.caller, id)
    except IllegalTransition as error:  # its state has changed since the page was made
        problem = error.message
    if "hx-request" not in request.headers:
        job = f"{UI}/jobs/{id}"
        return back(request, job, Message("refused", problem)) if problem else RedirectResponse(job, status_code=303)
    return changed(await _state(request, ctx, visitor, id, problem), "")


__all__ = ["JobRow", "Setting", "columns", "router"]
