"""Curves of several jobs on one axis, and the settings in which the jobs differ."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from service.api.web.deps import ContextDep
from service.dashboard.routes.jobs import JobRow, columns
from service.dashboard.web.pages import page
from service.dashboard.web.settings import settings_of
from service.dashboard.web.visitors import Visitor
from service.domain.job import Job
from service.operations import curves, jobs
from service.operations.curves import LIMIT_JOBS

router = APIRouter(prefix="/compare")
JOBS_OFFERED = 40
Chosen = Annotated[list[str], Query(default_factory=list, max_length=LIMIT_JOBS)]


@router.get("")
async def shown(request: Request, ctx: ContextDep, visitor: Visitor, job: Chosen) -> Response:
    """Which jobs to compare, and how those that were chosen differ."""
    found = await jobs.page(ctx, visitor.caller, after=None, limit=JOBS_OFFERED)
    chosen = [(await jobs.retrieve(ctx, visitor.caller, id)) for id in dict.fromkeys(job)]
    offered = {view.job.id: JobRow.of(view) for view in (*found.items, *chosen) if view.job.step}
    values = {
        "offered": list(offered.values()),
        "chosen": [JobRow.of(view) for view in chosen],
        "differences": differences([view.job for view in chosen]),
        "limit": LIMIT_JOBS,
    }
    return page(request, "compare.html", visitor, values)


@router.get("/curves")
async def data(ctx: ContextDep, visitor: Visitor, job: Chosen) -> JSONResponse:
    """The curves of the jobs."""
    return JSONResponse(
        [columns(curve) for curve in await curves.curves(ctx, visitor.caller, list(dict.fromkeys(job)))]
    )


def differences(of: list[Job]) -> list[tuple[str, list[object]]]:
    """Each setting that is not the same in all jobs, with its values; None where a job has none of that name."""
    found = [_settings(job) for job in of]
    names = dict.fromkeys(name for settings in found for name in settings)
    rows = [(name, [settings.get(name) for settings in found]) for name in names]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def _settings(job: Job) -> dict[str, object]:
    own: dict[str, object] = {
        "base": job.base,
        "starts from": job.parent_model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "objective": job.objective,
        "tuning": job.tuning["type"],
    }
    return own | {setting.name: setting.value for setting in settings_of(job)} | {"seed": job.seed}
