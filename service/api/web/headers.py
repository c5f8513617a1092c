"""The outermost layer: OpenAI's response headers on every answer, and an answer for every mistake of ours.

Whatever becomes of a request, it is counted here. Plain ASGI, so that streams pass untouched. Request ids are made here
and never taken from a client.
"""

import time
from collections.abc import Callable, Mapping

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.web import errors
from service.api.web.traffic import Traffic
from service.domain import ids
from service.gateway.limits import Standing, duration
from service.operations.keys import Caller

log = structlog.get_logger()
API_VERSION = "2020-10-01"


class AnswerBroken(Exception):
    """Something broke in the middle of an answer: the connection must break too, or half would look whole."""


class ResponseHeaders:
    """Middleware: see the module."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        with structlog.contextvars.bound_contextvars(request_id=answer.request_id):
            await self._answer(answer, scope, receive)

    async def _answer(self, answer: "_Answer", scope: Scope, receive: Receive) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            log.info("request.abandoned")
        except Exception as error:
            response = errors.unexpected(error)
            if answer.status is not None:
                answer.status = response.status_code  # what the client was told was not true
                raise AnswerBroken(answer.request_id) from None
            await response(scope, receive, answer.send)
        finally:
            self._record(answer, scope)

    def _record(self, answer: "_Answer", scope: Scope) -> None:
        self._traffic.answered(scope, answer.status, answer.seconds())
        log.debug(
            "request",
            method=scope["method"],
            route=self._traffic.route(scope),
            status=answer.status,
            milliseconds=answer.milliseconds(),
        )


class _Answer:
    """One answer on its way out."""

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
