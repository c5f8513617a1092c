"""Adds the dashboard to the API's application: pages at `/ui`, their calls of the API, headers, errors as pages.

Scripts of pages call the API at `/ui/v1/...`, which is `/v1/...` for the sign-in of the request's cookie: the same
routes, events and streams. What is not read-only needs the page's CSRF token, and acts in the page's project. A
browser's `/` leads to the pages; clients get the API's own response.
"""

import json
from collections.abc import MutableMapping
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.web.addresses import API
from service.api.web.auth import SIGNED_IN
from service.api.web.errors import clean, unexpected, worded
from service.api.web.traffic import Traffic
from service.dashboard.routes import checks, compare, files, jobs, keys, models, new_job, playground, sign_in, system
from service.dashboard.routes.system import Examine
from service.dashboard.web.attempts import Attempts
from service.dashboard.web.pages import STATIC, UI, page
from service.dashboard.web.returning import NEW_JOB, page_of
from service.dashboard.web.visitors import (
    CSRF_HEADER,
    READING,
    SignInNeeded,
    StalePage,
    signed_in,
)
from service.domain.errors import LuthierError, RateLimited
from service.installation.context import Context
from service.operations.keys import Caller

NOUNS = (sign_in, new_job, jobs, files, checks, models, playground, compare, system, keys)  # new_job before jobs/{id}
CALLS = f"{UI}{API}"
ENDED = "Your sign-in has ended. Continue: what you filled in is there again when you have signed in."
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def add_dashboard(app: FastAPI, examine: Examine | None = None) -> FastAPI:
    """The same application, with pages. To be called once, before it serves. `examine`: what `luthierd doctor` does."""
    pages = FastAPI(openapi_url=None, redirect_slashes=False)
    pages.state.context = app.state.context
    pages.state.examine = examine
    pages.state.attempts = Attempts()
    pages.mount("/static", StaticFiles(directory=STATIC))
    for noun in NOUNS:
        pages.include_router(noun.router)
    pages.add_exception_handler(SignInNeeded, _sign_in)
    pages.add_exception_handler(StalePage, _stale)
    pages.add_exception_handler(LuthierError, _known)
    pages.add_exception_handler(RequestValidationError, _invalid)
    pages.add_exception_handler(HTTPException, _refused)
    pages.add_exception_handler(Exception, _crashed)
    app.mount(UI, _PageHeaders(pages))
    traffic: Traffic = app.state.traffic
    traffic.add(UI, pages.routes)
    app.add_middleware(_PageCalls, site=app)
    return app


class _PageCalls:
    """Middleware in front of the API: what scripts of pages ask of it, and browsers that open `/`."""

    def __init__(self, app: ASGIApp, site: FastAPI) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == UI or (scope["path"] == "/" and _is_browser(scope)):
            await RedirectResponse(f"{UI}/", status_code=303, headers={"Vary": "Accept"})(scope, receive, send)
        elif scope["path"].startswith(f"{CALLS}/"):
            await self._call(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        called = {"path": scope["path"].removeprefix(UI), "raw_path": raw.removeprefix(UI.encode())}
        context: Context = self._site.state.context
        await self._app({**scope, **called, SIGNED_IN: partial(_caller, context, request)}, receive, send)


async def _caller(ctx: Context, request: Request) -> Caller:
    return (await signed_in(ctx, request, request.headers.get(CSRF_HEADER, ""), {})).caller


def _is_browser(scope: Scope) -> bool:
    accept = Request(scope).headers.get("accept", "")
    return scope["method"] in READING and "text/html" in accept


class _PageHeaders:
    """Middleware: what browsers may do with a page, and how long they may keep what it loads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = scope["path"].startswith(f"{UI}/static/") and scope["query_string"].startswith(b"v=")

        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add(message, "public, max-age=31536000, immutable" if kept else "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            if not started:
                raise  # else `_crashed` has logged it and shown a page, and Starlette raises it all the same


def _add(message: MutableMapping[str, Any], cache_control: str) -> None:
    headers = MutableHeaders(scope=message)
    headers.update(HEADERS)
    headers.setdefault("Cache-Control", cache_control)


async def _sign_in(request: Request, error: Exception) -> Response:
    assert isinstance(error, SignInNeeded)
    if _must_stay(request):
        return PlainTextResponse(ENDED, status_code=401)
    ended = "&ended=1" if error.ended else ""
    target = f"{UI}/sign-in?next={quote(page_of(request, error.form))}{ended}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": target})
    return RedirectResponse(target, status_code=303)


async def _stale(request: Request, error: Exception) -> Response:
    """A page of an earlier sign-in is made again, with what was filled in."""
    assert isinstance(error, StalePage)
    if _must_stay(request):
        return PlainTextResponse(error.message, status_code=error.status)
    target = page_of(request, error.form)
    if "hx-request" in request.headers:
        return Response(status_code=error.status, headers={"HX-Redirect": target})
    return _error_page(request, error.status, error.message, {}, target)


def _must_stay(request: Request) -> bool:
    """Whether a script asks for something by itself while somebody fills in a form, which another page would lose."""
    page = urlsplit(request.headers.get("hx-current-url", "")).path
    return request.method in READING and page == NEW_JOB


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, LuthierError)
    return _error_page(request, error.status, clean(error.message) or "", _retry(error))


async def _invalid(request: Request, error: Exception) -> Response:
    """A query that no page of ours links to."""
    assert isinstance(error, RequestValidationError)
    return await _known(request, worded(error))


async def _refused(request: Request, error: Exception) -> Response:
    """An address without a page. One that ends with a slash is tried without it."""
    assert isinstance(error, HTTPException)
    reads, url = request.method in READING, request.url
    if error.status_code == 404 and reads and url.path.endswith("/"):
        return RedirectResponse(url.path.rstrip("/") + (f"?{url.query}" if url.query else ""), status_code=307)
    if error.status_code == 404 or (error.status_code == 405 and reads):
        return _error_page(request, 404, "There is no such page.", {})
    return _error_page(request, error.status_code, str(error.detail), {})


async def _crashed(request: Request, error: Exception) -> Response:
    logged = json.loads(bytes(unexpected(error).body))
    return _error_page(request, 500, logged["error"]["message"], {})


def _error_page(request: Request, status: int, message: str, headers: dict[str, str], target: str = "") -> Response:
    """The message as a page, which leads to `target`; to a script the message alone, which it shows."""
    if "hx-request" in request.headers:
        return PlainTextResponse(message, status_code=status, headers=headers)
    values = {"status": status, "message": message, "target": target}
    shown = page(request, "error.html", None, values, status=status)
    shown.headers.update(headers)
    return shown


def _retry(error: LuthierError) -> dict[str, str]:
    seconds = error.retry_after_seconds if isinstance(error, RateLimited) else None
    return {} if seconds is None else {"Retry-After": str(max(1, round(seconds)))}
