"""A real HTTP server on loopback that plays a bad day of the service: what it sends to each request is scripted.

For what the service does rarely and a client must survive: cut connections, 429, 503, streams that end in the middle.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


@dataclass
class ScriptedApi:
    """Each request takes the next script; the last one is for all that follow."""

    scripts: list[Script]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.path_qs, headers, await request.read()))
        return await self.scripts[min(len(self.seen), len(self.scripts)) - 1](request)


@asynccontextmanager
async def scripted_api(*scripts: Script) -> AsyncIterator[ScriptedApi]:
    api = ScriptedApi(list(scripts))
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()


def sends(body: object, status: int = 200, **headers: str) -> Script:
    """One JSON response; `_` in a header's name is `-`."""

    async def script(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(body, status=status, headers=named)

    return script


def fails(status: int, message: str = "Try again.", **headers: str) -> Script:
    """An error of the service."""
    error = {"message": message, "type": "server_error", "param": "model", "code": "a_code"}
    return sends({"error": error}, status, **headers)


def streams(*chunks: bytes, cut: bool = False, kind: str = "text/event-stream") -> Script:
    """Each chunk as one write; then the end, or a connection that is gone."""

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if cut:
            await asyncio.sleep(0.02)  # what was written is read first
            await cuts(request)
        return response

    return script


async def cuts(request: web.Request) -> web.StreamResponse:
    """The connection is gone before, or in the middle of, the response."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hangs(request: web.Request) -> web.StreamResponse:
    """No response for longer than any test waits."""
    await asyncio.sleep(30)
    return web.Response()
