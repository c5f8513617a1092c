"""A server of ours ends at its signal, not when it next looks. What a connection may hold: tests/faults."""

import asyncio
import signal

import pytest
from starlette.types import Receive, Scope, Send

from service.processes import http_server
from service.processes.http_server import ConnectionLimits, HttpServer, JoinedWrites, serving


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody calls it")


async def test_a_signal_wakes_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "DATE_SECONDS", 3600.0)
    server = HttpServer(serving(_nothing, "127.0.0.1", 0, ConnectionLimits(), shutdown_seconds=1, lifespan=False))
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


class Recorded(asyncio.Transport):
    """What is written, by call."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def test_guard_a_head_and_the_body_that_follows_at_once_are_one_write() -> None:
    transport = Recorded()
    response = JoinedWrites(transport, asyncio.get_running_loop())
    for piece in (b"head ", b"body ", b"more"):
        response.write(piece)
    await asyncio.sleep(0)
    assert transport.written == [b"head body ", b"more"]


async def test_a_head_waits_for_no_body_that_comes_later() -> None:
    transport = Recorded()
    response = JoinedWrites(transport, asyncio.get_running_loop())
    response.write(b"head")
    await asyncio.sleep(0)
    assert transport.written == [b"head"]
    response.write(b"body")
    assert transport.written == [b"head", b"body"]


async def test_a_head_is_written_before_its_connection_closes_and_never_after() -> None:
    closing, broken = Recorded(), Recorded()
    for transport in (closing, broken):
        response = JoinedWrites(transport, asyncio.get_running_loop())
        response.write(b"head")
        (response if transport is closing else broken).close()
    await asyncio.sleep(0)
    assert (closing.written, broken.written) == ([b"head"], [])
