"""A receiver of webhooks: a real HTTP server on loopback that keeps what it was sent, and responds as a test says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True)
class Received:
    """One request, as the SDK's `unwrap` takes it."""

    body: str
    headers: dict[str, str]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """`status` is what it responds with; while `silent` is set it takes requests and never responds."""

    url: str = ""
    status: int = 200
    location: str = ""
    silent: bool = False
    received: list[Received] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(await request.text(), headers))
        self.arrived.set()
        while self.silent:
            await asyncio.sleep(0.01)
        return web.Response(status=self.status, headers={"Location": self.location} if self.location else {})


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Responds 200 until it is told otherwise; on any free port."""
    found = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield found
    finally:
        found.silent = False
        await runner.cleanup()
