"""Creating a job: a form of every method's settings, with the request that it stands for beside it."""

import re
from collections import defaultdict
from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from service.api.routes.jobs import new_job
from service.api.web.addresses import API
from service.api.web.deps import ContextDep
from service.dashboard.web import job_form
from service.dashboard.web.pages import UI, html, page
from service.dashboard.web.visitors import Posted, Visitor
from service.domain.errors import LuthierError, NotFound
from service.installation.context import Context
from service.operations import checks, files, jobs, models
from service.operations.sessions import SignedIn
from service.recipes.objective import OBJECTIVES
from service.recipes.tuning import TUNINGS

router = APIRouter(prefix="/jobs")
FILES_SHOWN = 200
PURPOSE = "fine-tune"
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@router.get("/new")
async def ask(
    request: Request, ctx: ContextDep, visitor: Visitor, again: str = "", file: str = "", check: str = ""
) -> Response:
    """The form: as the query has filled it in, or as the job `again` was created, or as `check` was asked for."""
    given = {"training_file": file, **request.query_params}
    if again:
        given = job_form.filled_from((await jobs.retrieve(ctx, visitor.caller, again)).job)
    elif check:
        given = job_form.filled_from(await checks.retrieve(ctx, visitor.caller, check))
    return page(request, "new_job.html", visitor, await _values(request, ctx, visitor, given))


@router.post("/new/settings")
async def settings(request: Request, visitor: Visitor, form: Posted) -> HTMLResponse:
    """The settings of another method."""
    return HTMLResponse(html(request, "new_job_settings.html", visitor, {**_method(form), "wrong": None}))


@router.post("/new/request")
async def shown(request: Request, visitor: Visitor, form: Posted) -> HTMLResponse:
    """The request that the form stands for."""
    return HTMLResponse(html(request, "new_job_request.html", visitor, _request(request, form)))


@router.post("")
async def create(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted) -> Response:
    """Creates the job, or shows the form again with what is wrong."""
    try:
        made = await jobs.create(ctx, visitor.caller, new_job(job_form.checked(job_form.body_of(form))))
    except LuthierError as error:
        values = await _values(request, ctx, visitor, form, error)
        return page(request, "new_job.html", visitor, values, status=error.status)
    return RedirectResponse(f"{UI}/jobs/{made.job.id}", status_code=303)


async def _values(
    request: Request,
    ctx: Context,
    visitor: SignedIn,
    given: Mapping[str, str],
    error: LuthierError | None = None,
) -> dict[str, object]:
    caller = visitor.caller
    stored = await files.page(ctx, caller, purpose=PURPOSE, after=None, limit=FILES_SHOWN, ascending=False)
    offered = {file.id: file for file in stored.items}
    for name in ("training_file", "validation_file"):
        if (id := given.get(name, "")) and id not in offered:
            try:
                offered[id] = await files.retrieve(ctx, caller, id)
            except NotFound:
                continue
    names = [model.id for model in await models.list_all(ctx, caller)]
    if not given.get("model"):
        given = {**given, "model": next(iter(names), "")}  # what the browser shows as chosen
    return {
        "given": defaultdict(str, given),
        "models": names,
        "files": list(offered.values()),
        "error": error.message if error is not None else "",
        **_method(given),
        **_request(request, given),
        "wrong": job_form.input_of(error.param) if error is not None else None,
    }


def _method(given: Mapping[str, str]) -> dict[str, object]:
    objective = given.get("objective") or OBJECTIVES.default.name
    tuning = given.get("tuning") or TUNINGS.default.name
    return {
        "objectives": OBJECTIVES.names,
        "tunings": TUNINGS.names,
        "objective": objective,
        "tuning": tuning,
        "objective_about": _about(OBJECTIVES.find(objective)),
        "tuning_about": _about(TUNINGS.find(tuning)),
        "method_fields": job_form.method_fields(objective, given),
        "tuning_fields": job_form.tuning_fields(tuning, given),
    }


def _about(method: type[object] | None) -> str:
    """The first sentence of a method's paragraph, or what it says before a colon; without its links."""
    text = " ".join(((method.__doc__ if method is not None else "") or "").split())
    plain = _LINK.sub(r"\1", text).replace("`", "")
    return f"{re.split(r'[.:] ', plain, maxsplit=1)[0].rstrip('.')}."


def _request(request: Request, given: Mapping[str, str]) -> dict[str, str]:
    base_url = f"{request.url.scheme}://{request.url.netloc}{API}"
    body = job_form.body_of(given)
    return {"curl": job_form.as_curl(body, base_url), "python": job_form.as_python(body, base_url)}
