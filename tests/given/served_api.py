"""The API on a socket, in this process: for what an in-process client cannot see, such as who hangs up and when."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.types import ASGIApp

from service.processes.http_server import ConnectionLimits, serving


@asynccontextmanager
async def served(app: ASGIApp, limits: ConnectionLimits | None = None) -> AsyncIterator[str]:
    """Its base URL on a free port of loopback."""
    config = serving(app, "127.0.0.1", 0, limits or ConnectionLimits(), shutdown_seconds=5, lifespan=False)
    server = uvicorn.Server(config)
    serving_it = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    await serving_it
