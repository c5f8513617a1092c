"""A check of a file or of a whole job before it exists: bad lines, counts, advice, and the mask of each row."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup

from service.api.routes.jobs import new_job
from service.api.web.deps import ContextDep
from service.dashboard.web import job_form
from service.dashboard.web.charts import Bar
from service.dashboard.web.fragments import changed, live
from service.dashboard.web.pages import UI, html, page
from service.dashboard.web.visitors import Posted, Visitor
from service.domain.check import FINAL, CheckResult, FileReport, LengthBucket
from service.domain.errors import LuthierError
from service.installation.context import Context
from service.operations import checks
from service.operations.checks import result_of
from service.operations.sessions import SignedIn

router = APIRouter(prefix="/checks")
STATE = "check-state"
ROWS_SHOWN = 5
PROBLEMS_SHOWN = 100


@router.post("")
async def create(request: Request, ctx: ContextDep, visitor: Visitor, form: Posted) -> Response:
    """Checks what the form of a new job says, or a file with a model: on the form's page where a script asks."""
    scripted = "hx-request" in request.headers
    try:
        made = await checks.create(ctx, visitor.caller, new_job(job_form.checked(job_form.body_of(form))))
    except LuthierError as error:
        if not scripted:
            raise
        return HTMLResponse(html(request, "check_refused.html", visitor, {"id": STATE, "message": error.message}))
    if not scripted:
        return RedirectResponse(f"{UI}/checks/{made.id}", status_code=303)
    return changed(await state_of(request, ctx, visitor, made.id, embedded=True), "")


@router.get("/{id}")
async def shown(request: Request, ctx: ContextDep, visitor: Visitor, id: str) -> Response:
    """One check."""
    fragment, _ = await state_of(request, ctx, visitor, id)
    check = await checks.retrieve(ctx, visitor.caller, id)
    return page(request, "check.html", visitor, {"check": check, "state": Markup(fragment)})


@router.get("/{id}/state")
async def state(
    request: Request, ctx: ContextDep, visitor: Visitor, id: str, have: str = "", embedded: bool = False
) -> Response:
    """What was found so far, if that has changed."""
    return changed(await state_of(request, ctx, visitor, id, embedded=embedded), have)


@router.get("/{id}/rows")
async def rows(request: Request, ctx: ContextDep, visitor: Visitor, id: str, start: int = 0) -> HTMLResponse:
    """The masks of some rows."""
    return HTMLResponse(html(request, "check_rows.html", visitor, await _rows(ctx, visitor, id, max(0, start))))


async def state_of(
    request: Request, ctx: Context, visitor: SignedIn, id: str, *, embedded: bool = False
) -> tuple[str, str]:
    """The fragment of a check, and its hash; `embedded` in another page."""
    check = await checks.retrieve(ctx, visitor.caller, id)
    result = result_of(check)
    values: dict[str, object] = {
        "check": check,
        "result": result,
        "reports": [] if result is None else _reports(result),
        "problems_shown": PROBLEMS_SHOWN,
        "masks": None,
        "embedded": embedded,
    }
    if result is not None and result.training_file.valid:
        values["masks"] = Markup(html(request, "check_rows.html", visitor, await _rows(ctx, visitor, id, 0)))
    busy = check.status not in FINAL
    url = f"{UI}/checks/{id}/state" + ("?embedded=true" if embedded else "")
    return live(request, "check_state.html", visitor, values, id=STATE, url=url, busy=busy, idle_seconds=0)


async def _rows(ctx: Context, visitor: SignedIn, id: str, start: int) -> dict[str, object]:
    found = await checks.rows(ctx, visitor.caller, id, start=start, limit=ROWS_SHOWN)
    return {
        "id": id,
        "rows": found.rows,
        "start": start,
        "total": found.total,
        "before": max(0, start - ROWS_SHOWN) if start else None,
        "after": start + len(found.rows) if found.has_more else None,
    }


def _reports(result: CheckResult) -> list[tuple[str, FileReport, list[Bar]]]:
    """Each file by its name on the page, with its lengths as bars."""
    named = (("Training file", result.training_file), ("Validation file", result.validation_file))
    return [
        (name, report, [] if report.counts is None else bars(report.counts.lengths))
        for name, report in named
        if report is not None
    ]


def bars(lengths: list[LengthBucket]) -> list[Bar]:
    """The buckets in a drawing of 100 by 100, the tallest as high as that."""
    if not lengths:
        return []
    width, tallest = 100 / len(lengths), max(1, max(bucket.sequences for bucket in lengths))
    return [
        Bar(
            index * width,
            width * 0.86,
            100 * bucket.sequences / tallest,
            bucket.at_least,
            bucket.below - 1,
            bucket.sequences,
        )
        for index, bucket in enumerate(lengths)
    ]
