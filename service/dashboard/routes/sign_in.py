"""Signing in with an API key, signing out, and which project an admin looks at."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from service.api.web.deps import ContextDep
from service.dashboard.web.attempts import Attempts
from service.dashboard.web.pages import UI, page
from service.dashboard.web.returning import HOME, ours
from service.dashboard.web.visitors import Posted, forget, keep, read_form, token_of
from service.domain.errors import Forbidden, Unauthenticated
from service.operations import sessions

router = APIRouter()
KEY_CHARACTERS = 500


@router.get("/")
async def home() -> Response:
    """The jobs."""
    return RedirectResponse(HOME, status_code=303)


@router.get("/sign-in")
async def ask(request: Request, next: str = "", ended: Annotated[bool, Query()] = False) -> Response:
    """The form."""
    return page(request, "sign_in.html", None, {"next": next, "ended": ended, "error": ""})


@router.post("/sign-in")
async def sign_in(request: Request, ctx: ContextDep) -> Response:
    """Takes the key; a wrong one is said on the form. Another site's form signs nobody in."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("Sign in on this page itself, not from another site.")
    attempts: Attempts = request.app.state.attempts
    address = request.client.host if request.client is not None else ""
    attempts.check(address)
    form = await read_form(request)
    next = form.get("next", "")
    try:
        token = await sessions.sign_in(ctx, form.get("key", "").strip()[:KEY_CHARACTERS])
    except Unauthenticated:
        attempts.failed(address)
        error = "This key is not valid. Check that you copied all of it, or create a new one."
        return page(request, "sign_in.html", None, {"next": next, "ended": False, "error": error}, status=401)
    response = RedirectResponse(ours(next), status_code=303)
    keep(response, request, token)
    return response


@router.post("/sign-out")
async def sign_out(request: Request, ctx: ContextDep, form: Posted) -> Response:
    """Ends the sign-in, here and in the database."""
    await sessions.sign_out(ctx, token_of(request))
    response = RedirectResponse(f"{UI}/sign-in", status_code=303)
    forget(response)
    return response


@router.post("/project")
async def select_project(request: Request, ctx: ContextDep, form: Posted) -> Response:
    """Shows an admin another project."""
    await sessions.select_project(ctx, token_of(request), form.get("project", ""))
    return RedirectResponse(HOME, status_code=303)
