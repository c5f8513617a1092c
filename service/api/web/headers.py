"""The outermost layer: OpenAI's headers on every response, and a response for every error in the service.

Every request is counted here. Plain ASGI, so that streams pass untouched. Request ids are made here and never taken
from a client.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.web import errors
from service.api.web.traffic import Traffic
from service.domain import ids
from service.domain.errors import Unavailable
from service.gateway.limits import Standing, duration
from service.operations.keys import Caller

log = structlog.get_logger()
API_VERSION = "2020-10-01"
SHUTTING_DOWN = "The server is shutting down. Please try again."
EXPOSED = (  # headers that a page of another origin may read, where pages may call the API at all
    "x-request-id", "openai-version", "openai-processing-ms", "openai-organization", "openai-project", "retry-after",
    "retry-after-ms", "x-should-retry", "luthier-ignored", "luthier-stored", "luthier-manifest-sha256",
    *(f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")),
)  # fmt: skip


class ResponseBroken(Exception):
    """An error after the response has begun: the connection must break, or half a response would look whole."""


class ResponseHeaders:
    """Middleware: see the module."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _Response(scope, send)
        with structlog.contextvars.bound_contextvars(request_id=response.request_id):
            await self._serve(response, scope, receive)

    async def _serve(self, response: "_Response", scope: Scope, receive: Receive) -> None:
        try:
            await self._app(scope, receive, response.send)
        except ClientDisconnect:
            log.info("request.abandoned")
        except asyncio.CancelledError:  # the server ends, and has waited for this request long enough
            if response.status is not None:
                raise
            log.info("request.cancelled")
            await errors.envelope(Unavailable(SHUTTING_DOWN))(scope, receive, response.send)
        except Exception as error:
            refusal = errors.unexpected(error)
            if response.status is not None:
                response.status = refusal.status_code  # the client has received another status, which was wrong
                raise ResponseBroken(response.request_id) from None
            await refusal(scope, receive, response.send)
        finally:
            self._record(response, scope)

    def _record(self, response: "_Response", scope: Scope) -> None:
        self._traffic.count(scope, response.status, response.seconds())
        log.debug(
            "request",
            method=scope["method"],
            route=self._traffic.route(scope),
            status=response.status,
            milliseconds=response.milliseconds(),
        )


class _Response:
    """One response while it is sent."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = ids.request_id()
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def milliseconds(self) -> int:
        return round(self.seconds() * 1000)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._add_headers(MutableHeaders(scope=message))
        await self._send(message)

    def _add_headers(self, headers: MutableHeaders) -> None:
        headers["x-request-id"] = self.request_id
        headers["openai-version"] = API_VERSION
        headers["openai-processing-ms"] = str(self.milliseconds())
        caller: Caller | None = self._scope.get("state", {}).get("caller")
        if caller is not None:
            headers["openai-organization"] = caller.organization
            headers["openai-project"] = caller.project_id
            if caller.ignored:
                headers["luthier-ignored"] = ", ".join(caller.ignored)
        standing: Callable[[], Mapping[str, Standing]] | None = self._scope.get("state", {}).get("standing")
        for kind, now in standing().items() if standing is not None else ():
            headers[f"x-ratelimit-limit-{kind}"] = str(now.limit)
            headers[f"x-ratelimit-remaining-{kind}"] = str(now.remaining)
            headers[f"x-ratelimit-reset-{kind}"] = duration(now.reset_seconds)
