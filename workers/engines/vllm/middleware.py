"""ASGI middleware of vLLM's API server: only the routes that the gateway needs, and a drain before vLLM stops.

While vLLM shuts down, it returns 200 with truncated text. So this drains first: after SIGUSR1 new requests get a 503,
running ones finish, and then vLLM gets a SIGTERM. If they take too long vLLM is killed, because clients notice a broken
connection. It also sends the response for `Refused`, raised by the plugin. Loaded by `--middleware`; does not import
vLLM.
"""

import asyncio
import json
import os
import signal

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from service.settings.settings import Settings

log = structlog.get_logger()

DRAIN_SIGNAL = signal.SIGUSR1
GENERATING = frozenset({"/v1/completions", "/v1/chat/completions"})
OPEN = GENERATING | {"/health", "/metrics", "/v1/models", "/version"}  # not the routes that load any folder of the disk


class Refused(Exception):
    """Raised by the plugin before a response began; the middleware sends it, with a `code` that vLLM cannot set."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class DrainingMiddleware:
    """Counts the running requests; ends the process when it is draining and they have ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._num_running = 0
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().add_signal_handler(DRAIN_SIGNAL, self._drain)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] not in OPEN:
            await refuse(send, 404, "There is no such route here.")
        elif self._draining and scope["path"] != "/metrics":
            await refuse(send, 503, "The engine is restarting. Please try again later.")
        elif scope["path"] not in GENERATING:
            await self._app(scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._num_running += 1
        try:
            await self._app(scope, receive, send)
        except Refused as refusal:
            await refuse(send, refusal.status, str(refusal), refusal.code)
        finally:
            self._num_running -= 1
            self._end_when_idle()

    def _drain(self) -> None:
        if not self._draining:
            log.info("vllm.draining", requests=self._num_running)
            self._draining = True
            limit_seconds = Settings().vllm_drain_seconds
            asyncio.get_running_loop().call_later(limit_seconds, os.kill, os.getpid(), signal.SIGKILL)
            self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self._draining and not self._num_running:
            # A moment later: the last response's bytes may not have reached the socket yet.
            asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)


async def refuse(send: Send, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
    """Sends vLLM's error envelope, which has the status as `code` where there is no better one."""
    error = {"message": message, "type": "Refused", "param": param, "code": code or status}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
