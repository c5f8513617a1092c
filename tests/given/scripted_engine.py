"""A real HTTP server on loopback that plays an engine: each test writes what it answers.

A peer of the gateway, not a mock of ours: the gateway meets it over a socket, as it meets vLLM.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Script = Callable[[web.Request], Awaitable[web.StreamResponse]]

COMPLETION = (
    b'{"id": "cmpl-1",  "object":"text_completion","created":1,"model":"luthier-tiny","extra":null,\n'
    b'"choices":[{"index":0,"text":"caf\xc3\xa9","logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'
)


class ScriptedEngine:
    """What it was asked, whether a client hung up on it, and the script that it follows."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[dict[str, Any]] = []
        self.hung_up = asyncio.Event()
        self.script: Script = answers(COMPLETION)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append({"path": request.path, **await request.json()})
        try:
            return await self.script(request)
        except (asyncio.CancelledError, ConnectionError):
            self.hung_up.set()
            raise


@asynccontextmanager
async def scripted_engine(port: int = 0) -> AsyncIterator[ScriptedEngine]:
    """An engine that answers COMPLETION until its script is changed; on any free port, unless one is given."""
    engine = ScriptedEngine()
    app = web.Application()
    app.router.add_post("/v1/{endpoint:.*}", engine.handle)
    app.router.add_get("/health", _healthy)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield engine
    finally:
        await runner.cleanup()


async def _healthy(request: web.Request) -> web.Response:
    return web.Response()


def answers(body: bytes, status: int = 200) -> Script:
    """One JSON answer."""

    async def script(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type="application/json")

    return script


def streams(*chunks: bytes, then: Callable[[web.Request], Awaitable[None]] | None = None) -> Script:
    """Each chunk as one write; `then` happens before the stream would end."""

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if then is not None:
            await then(request)
        return response

    return script


async def dies(request: web.Request) -> None:
    """The engine's process is gone: its connection closes in the middle of the answer, what was said has been read."""
    await asyncio.sleep(0.05)
    assert request.transport is not None
    request.transport.abort()


async def hangs(request: web.Request) -> None:
    await asyncio.sleep(30)
