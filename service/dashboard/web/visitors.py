"""Who looks at a page: the cookie of a sign-in, and the token that proves from which page a request comes.

The cookie holds an opaque token, is sent to `/ui` only, and scripts cannot read it. The CSRF token names the project
that the page shows, and is signed by the cookie's. Forms and scripts send it back, so that what somebody does on a page
happens in the project that the page shows, whichever project another tab has chosen since.
"""

import hmac
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.responses import Response

from service.api.web.deps import ContextDep
from service.dashboard.web.pages import UI
from service.domain.errors import Forbidden, TooLarge, Unauthenticated
from service.installation.context import Context
from service.operations import sessions
from service.operations.sessions import SignedIn

COOKIE = "luthier_session"
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
FORM_BYTES = 256 * 1024
FORM_FIELDS = 500
READING = ("GET", "HEAD")

Form = dict[str, str]


class SignInNeeded(Exception):
    """The page is for people who have signed in; `ended`: this one had. `form`: what they sent."""

    def __init__(self, form: Form, *, ended: bool) -> None:
        super().__init__()
        self.form = form
        self.ended = ended


class StalePage(Forbidden):
    """The page belongs to no sign-in, or to another one. `form`: what was sent from it."""

    def __init__(self, form: Form) -> None:
        super().__init__("Nothing was done: this page is of an earlier sign-in. Go back to it and try again.")
        self.form = form


def token_of(request: Request) -> str:
    """What the browser keeps; empty for none."""
    return request.cookies.get(COOKIE, "")


def csrf_of(token: str, project_id: str) -> str:
    """The project, signed by the sign-in's token: another site can neither read nor guess it."""
    signature = hmac.new(token.encode(), f"csrf:{project_id}".encode(), "sha256").hexdigest()
    return f"{project_id}.{signature}"


def project_shown(token: str, sent: str) -> str | None:
    """The project of the page that has sent this CSRF token; None where it is not one of this sign-in."""
    project_id = sent.rpartition(".")[0]
    return project_id if hmac.compare_digest(sent.encode(), csrf_of(token, project_id).encode()) else None


async def signed_in(ctx: Context, request: Request, sent: str, form: Form) -> SignedIn:
    """Who sends the request, in the project of the page that it comes from.

    What changes something has to come from a page; the sign-in then moves to that page's project, so that the next page
    shows it too. Raises Unauthenticated, StalePage, Forbidden, NotFound.
    """
    token, reads = token_of(request), request.method in READING
    found = await sessions.find(ctx, token)
    if reads and not sent:
        return found
    project_id = project_shown(token, sent)
    if project_id is None:
        raise StalePage(form)
    if project_id == found.caller.project_id:
        return found
    if not reads:
        await sessions.select_project(ctx, token, project_id)
    return await sessions.find(ctx, token, project_id)


def keep(response: Response, request: Request, token: str) -> None:
    """The browser keeps the token as long as it runs, and sends it to pages only."""
    response.set_cookie(COOKIE, token, path=UI, httponly=True, samesite="strict", secure=request.url.scheme == "https")


def forget(response: Response) -> None:
    response.delete_cookie(COOKIE, path=UI, httponly=True, samesite="strict")


async def read_form(request: Request) -> Form:
    """The fields of a short form. Raises TooLarge."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > FORM_BYTES:
            raise TooLarge(f"A form may have at most {FORM_BYTES:,} bytes.")
    try:
        return dict(parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS))
    except ValueError as error:
        raise TooLarge(f"A form may have at most {FORM_FIELDS} fields.") from error


async def _visitor(request: Request, ctx: ContextDep) -> SignedIn:
    """Raises SignInNeeded and what `signed_in` raises."""
    form = {} if request.method in READING else await read_form(request)
    if not token_of(request):
        raise SignInNeeded(form, ended=False)
    try:
        sent = request.headers.get(CSRF_HEADER) or form.get(CSRF_FIELD, "")
        found = await signed_in(ctx, request, sent, form)
    except Unauthenticated as error:
        raise SignInNeeded(form, ended=True) from error
    request.state.form = form
    request.state.csrf = csrf_of(token_of(request), found.caller.project_id)
    if found.is_admin and request.method == "GET" and "hx-request" not in request.headers:
        request.state.projects = await sessions.projects(ctx, found.caller)
    return found


Visitor = Annotated[SignedIn, Depends(_visitor)]


async def _posted(request: Request, visitor: Visitor) -> Form:
    """The form that somebody who is signed in has sent from a page of ours."""
    form: Form = request.state.form
    return form


async def _admin(visitor: Visitor) -> SignedIn:
    if not visitor.is_admin:
        raise Forbidden("This page is for keys of the role admin (`luthierd keys create --admin`).")
    return visitor


Posted = Annotated[Form, Depends(_posted)]
Admin = Annotated[SignedIn, Depends(_admin)]
