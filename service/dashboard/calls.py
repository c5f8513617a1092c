"""Middleware in front of the API: what scripts of pages ask of it, at `/ui/v1`, and browsers that open `/`.

`/ui/v1/...` is `/v1/...` for the sign-in of the request's cookie: the same routes, events and streams. What is not
read-only needs the page's CSRF token. A browser's `/` leads to the pages; clients get the API's own response.
"""

from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.web import errors
from service.api.web.addresses import API
from service.api.web.auth import SIGNED_IN
from service.dashboard.web.pages import UI
from service.dashboard.web.visitors import CSRF_HEADER, check_csrf, token_of
from service.domain.errors import Forbidden
from service.installation.context import Context
from service.operations import sessions
from service.operations.keys import Caller

CALLS = f"{UI}{API}"
READING = ("GET", "HEAD")


class PageCalls:
    """Middleware: see the module."""

    def __init__(self, app: ASGIApp, site: FastAPI) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/" and _is_browser(scope):
            await RedirectResponse(f"{UI}/", status_code=303, headers={"Vary": "Accept"})(scope, receive, send)
        elif scope["path"].startswith(f"{CALLS}/"):
            await self._call(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if scope["method"] not in READING:
            try:
                check_csrf(request, request.headers.get(CSRF_HEADER, ""))
            except Forbidden as error:
                await errors.envelope(error)(scope, receive, send)
                return
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        called = {"path": scope["path"].removeprefix(UI), "raw_path": raw.removeprefix(UI.encode())}
        context: Context = self._site.state.context
        await self._app({**scope, **called, SIGNED_IN: partial(_caller, context, token_of(request))}, receive, send)


async def _caller(ctx: Context, token: str) -> Caller:
    return (await sessions.find(ctx, token)).caller


def _is_browser(scope: Scope) -> bool:
    accept = Request(scope).headers.get("accept", "")
    return scope["method"] in READING and "text/html" in accept
