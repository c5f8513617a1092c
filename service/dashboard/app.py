"""Adds the dashboard to the API's application: pages at `/ui`, their calls of the API, headers, errors as pages."""

import json
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.web.errors import clean, unexpected
from service.api.web.traffic import Traffic
from service.dashboard.calls import PageCalls
from service.dashboard.routes import checks, compare, files, jobs, keys, models, new_job, playground, sign_in, system
from service.dashboard.routes.system import Examine
from service.dashboard.web.attempts import Attempts
from service.dashboard.web.pages import STATIC, UI, page
from service.dashboard.web.visitors import SignInNeeded
from service.domain.errors import LuthierError, RateLimited

NOUNS = (sign_in, new_job, jobs, files, checks, models, playground, compare, system, keys)  # new_job before jobs/{id}
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
    pages.add_exception_handler(LuthierError, _known)
    pages.add_exception_handler(HTTPException, _refused)
    pages.add_exception_handler(Exception, _crashed)
    app.mount(UI, PageHeaders(pages))
    traffic: Traffic = app.state.traffic
    traffic.add(UI, pages.routes)
    app.add_middleware(PageCalls, site=app)
    return app


class PageHeaders:
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
    ended = "&ended=1" if error.ended else ""
    back = ""
    if request.method == "GET" and "hx-request" not in request.headers:
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = f"{UI}/sign-in?next={quote(back)}{ended}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": target})
    return RedirectResponse(target, status_code=303)


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, LuthierError)
    return _error_page(request, error.status, clean(error.message) or "", _retry(error))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = "There is no such page." if error.status_code == 404 else str(error.detail)
    return _error_page(request, error.status_code, message, {})


async def _crashed(request: Request, error: Exception) -> Response:
    logged = json.loads(bytes(unexpected(error).body))
    return _error_page(request, 500, logged["error"]["message"], {})


def _error_page(request: Request, status: int, message: str, headers: dict[str, str]) -> Response:
    shown = page(request, "error.html", None, {"status": status, "message": message}, status=status)
    shown.headers.update(headers)
    return shown


def _retry(error: LuthierError) -> dict[str, str]:
    seconds = error.retry_after_seconds if isinstance(error, RateLimited) else None
    return {} if seconds is None else {"Retry-After": str(max(1, round(seconds)))}
