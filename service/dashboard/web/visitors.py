"""Who looks at a page: the cookie of a sign-in, and the token that proves that a POST comes from a page of ours.

The cookie holds an opaque token, is sent to `/ui` only, and scripts cannot read it. The CSRF token is derived from it.
"""

import hmac
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi.responses import Response

from service.api.web.deps import ContextDep
from service.dashboard.web.pages import UI
from service.domain.errors import Forbidden, TooLarge, Unauthenticated
from service.operations import sessions
from service.operations.sessions import SignedIn

COOKIE = "luthier_session"
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
FORM_BYTES = 256 * 1024
STALE = "This page is out of date. Reload it and try again."

Form = dict[str, str]


class SignInNeeded(Exception):
    """The page is for people who have signed in; `ended`: this one had."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self.ended = ended


def token_of(request: Request) -> str:
    """What the browser keeps; empty for none."""
    return request.cookies.get(COOKIE, "")


def csrf_of(token: str) -> str:
    """Derived from the sign-in's token: another site can neither read nor guess it."""
    return hmac.new(token.encode(), b"csrf", "sha256").hexdigest()


def check_csrf(request: Request, sent: str) -> None:
    """Raises Forbidden unless what was sent belongs to this sign-in."""
    if not hmac.compare_digest(sent.encode(), csrf_of(token_of(request)).encode()):
        raise Forbidden(STALE)


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
    fields = parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=500)
    return dict(fields)


async def _visitor(request: Request, ctx: ContextDep) -> SignedIn:
    """Raises SignInNeeded."""
    token = token_of(request)
    if not token:
        raise SignInNeeded(ended=False)
    try:
        found = await sessions.find(ctx, token)
    except Unauthenticated as error:
        raise SignInNeeded(ended=True) from error
    request.state.csrf = csrf_of(token)
    if found.is_admin and request.method == "GET" and "hx-request" not in request.headers:
        request.state.projects = await sessions.projects(ctx, found.caller)
    return found


Visitor = Annotated[SignedIn, Depends(_visitor)]


async def _posted(request: Request, visitor: Visitor) -> Form:
    """The form that somebody who is signed in has sent from a page of ours. Raises Forbidden."""
    form = await read_form(request)
    check_csrf(request, request.headers.get(CSRF_HEADER) or form.get(CSRF_FIELD, ""))
    return form


async def _admin(visitor: Visitor) -> SignedIn:
    if not visitor.is_admin:
        raise Forbidden("This page is for keys of the role admin (`luthierd keys create --admin`).")
    return visitor


Posted = Annotated[Form, Depends(_posted)]
Admin = Annotated[SignedIn, Depends(_admin)]
