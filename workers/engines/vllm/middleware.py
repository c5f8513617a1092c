"""The door of vLLM: ASGI middleware that lets in what the gateway needs, and empties the house before it closes.

vLLM's own shutdown answers 200 with cut-off text to whoever comes meanwhile. So the door drains first: on SIGUSR1 new
requests get a 503, running ones finish, and then vLLM is told to end; where they take too long it is killed, because a
broken connection is an honest answer. It also answers for whoever raises `Refused` inside. Loaded into vLLM's API
server by `--middleware`; knows ASGI, signals and one setting, no adapter and nothing of vLLM.
"""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog

from service.settings.settings import Settings

log = structlog.get_logger()

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DRAIN_SIGNAL = signal.SIGUSR1
GENERATING = frozenset({"/v1/completions", "/v1/chat/completions"})
OPEN = GENERATING | {"/health", "/metrics", "/v1/models", "/version"}  # closed: routes that load any folder of the disk


class Refused(Exception):
    """Raised inside, before an answer began; the door gives it. vLLM itself puts nothing but the status into `code`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Door:
    """Counts the requests inside. Never speaks to vLLM but by SIGTERM."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._num_inside = 0
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().add_signal_handler(DRAIN_SIGNAL, self._drain)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] not in OPEN:
            await _refuse(send, 404, "There is no such route here.")
        elif self._draining and scope["path"] != "/metrics":
            await _refuse(send, 503, "The engine is restarting. Please try again later.")
        elif scope["path"] not in GENERATING:
            await self._app(scope, receive, send)
        else:
            await self._let_in(scope, receive, send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._num_inside += 1
        try:
            await self._app(scope, receive, send)
        except Refused as refusal:
            await _refuse(send, refusal.status, str(refusal), refusal.code)
        finally:
            self._num_inside -= 1
            self._end_when_empty()

    def _drain(self) -> None:
        if not self._draining:
            log.info("vllm.draining", requests=self._num_inside)
            self._draining = True
            limit_seconds = Settings().vllm_drain_seconds
            asyncio.get_running_loop().call_later(limit_seconds, os.kill, os.getpid(), signal.SIGKILL)
            self._end_when_empty()

    def _end_when_empty(self) -> None:
        if self._draining and not self._num_inside:
            # In a moment: the last answer's bytes are still on their way to the socket.
            asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)


async def _refuse(send: Send, status: int, message: str, code: str | None = None) -> None:
    """vLLM's envelope, where the status stands in `code` unless there is a better word."""
    error = {"message": message, "type": "Refused", "param": None, "code": code or status}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
