"""A server of ours ends at its signal, not when it next looks. What a connection may hold: tests/faults."""

import asyncio
import signal

import pytest
from starlette.types import Receive, Scope, Send

from service.processes import http_server
from service.processes.http_server import ConnectionLimits, Server, serving


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody calls it")


async def test_a_signal_wakes_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "DATE_SECONDS", 3600.0)
    server = Server(serving(_nothing, "127.0.0.1", 0, ConnectionLimits(), shutdown_seconds=1, lifespan=False))
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        running = asyncio.create_task(server.serve())
        async with asyncio.timeout(30):
            while not server.started:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert not running.done()
            signal.raise_signal(signal.SIGTERM)
            await running
        assert heard == [signal.SIGTERM]  # uvicorn raises it again, for whoever runs the server
    finally:
        signal.signal(signal.SIGTERM, before)
