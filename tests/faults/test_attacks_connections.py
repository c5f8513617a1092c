"""What one hostile connection may hold: heads without end, drips, and responses that nobody reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.processes.http_server import BoundedProtocol, ConnectionLimits, bound_every_server
from tests.given.served_api import served

pytestmark = pytest.mark.slow

QUICK = ConnectionLimits(
    head_seconds=0.4,
    body_seconds=0.2,
    write_seconds=0.2,
    check_seconds=0.05,
    linger_seconds=0.2,
    bytes_per_second=500,
    idle_seconds=0.3,
)
PIECE = b"x" * 65_536


class App:
    """Reads each request to its end and says how many bytes its body had; `/long` sends without end."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.ended = asyncio.Event()
        self.disconnects = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] == "/long":
                await self._send_long(receive, send)
            elif scope["path"] == "/refused":
                await respond(send, b"refused")
            else:
                await self._count(receive, send)
        finally:
            self.ended.set()

    async def _send_long(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        watching = asyncio.create_task(self._disconnected(receive))
        while not watching.done():
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            self.sent_bytes += len(PIECE)
            await asyncio.sleep(0)

    async def _disconnected(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnects += 1

    async def _count(self, receive: Receive, send: Send) -> None:
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                await respond(send, b"%d bytes" % size)
                return
        self.disconnects += 1


async def respond(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def app() -> App:  # type: ignore[override]  # the server alone, without the API
    return App()


@pytest.fixture
async def port(app: App) -> AsyncIterator[int]:
    async with served(app, QUICK) as url:
        yield urlsplit(url).port or 0


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.sent_bytes = 0

    async def send(self, *pieces: bytes) -> bool:
        """False once the server has ended the connection."""
        try:
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                self.sent_bytes += len(piece)
        except ConnectionError:
            return False
        return not self.writer.is_closing()

    async def rest(self) -> bytes:
        """All that still comes, until the server ends the connection."""
        try:
            async with asyncio.timeout(5):
                return await self.reader.read()
        except ConnectionError:
            return b""


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:  # type: ignore[override]
    async with connected(port) as client:
        yield client


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    yield client
    client.writer.transport.abort()


HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"X-Long: ", PIECE),
        (HEAD + b"X", PIECE),
        (b"POST /", PIECE),
        (b"", PIECE),
        (b"", b"\r\n" * 32_768),
        (HEAD, b"X-A: b\r\n" * 8_192),
        (CHUNKED + b"0\r\nX-Long: ", PIECE),
        (CHUNKED + b"0\r\n", b"X-A: b\r\n" * 8_192),
        (CHUNKED + b"1;", PIECE),
    ],
    ids=["value", "name", "url", "method", "blank lines", "many", "trailer", "many trailers", "chunk extension"],
)
async def test_a_head_without_end_is_refused_early(app: App, start: bytes, piece: bytes) -> None:
    """By its bytes: the server would wait for longer than this test does."""
    async with served(app, replace(QUICK, head_seconds=600, body_seconds=600)) as url:
        client = Client(*await asyncio.open_connection("127.0.0.1", urlsplit(url).port))
        open_ = await client.send(start)
        for _ in range(100):
            if not open_:
                break
            open_ = await client.send(piece)
            await asyncio.sleep(0.005)  # the server's answer and end have time to arrive
        client.writer.transport.abort()
    assert not open_
    assert client.sent_bytes < 100 * len(piece)


async def test_a_refusal_names_the_limit_in_the_envelope(client: Client) -> None:
    await client.send(HEAD + b"X-A: b\r\n" * 129 + b"\r\n")
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'{"error": {"message": "The head of a request may have at most 128 headers' in answer


async def test_an_ordinary_request_passes_and_its_connection_stays(client: Client) -> None:
    for body in (b"abc", b"x" * 300_000, b""):
        await client.send(HEAD + b"X-A: b\r\n" * 100 + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        said = await client.reader.readuntil(b" bytes")
        assert said.endswith(b"%d bytes" % len(body))
    await client.send(CHUNKED + b"3\r\nabc\r\n0\r\nX-Trailer: a\r\n\r\n")
    assert (await client.reader.readuntil(b" bytes")).endswith(b"3 bytes")
    assert await client.rest() == b""  # it ends when no request follows


async def drip(client: Client, pause_seconds: float, pieces: int) -> bool:
    """One byte at a time; whether the connection outlived all of them."""
    for _ in range(pieces):
        if not await client.send(b"x"):
            return False
        await asyncio.sleep(pause_seconds)
    return True


@pytest.mark.parametrize("start", [b"P", HEAD + b"X-Slow: ", b"\r\n"])
async def test_a_head_that_drips_is_ended(client: Client, start: bytes) -> None:
    await client.send(start)
    assert not await drip(client, 0.02, 200)


async def test_a_connection_that_sends_nothing_is_ended(client: Client) -> None:
    assert await client.rest() == b""


async def test_a_body_that_drips_is_ended_and_its_request_too(client: Client, app: App) -> None:
    await client.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    assert not await drip(client, 0.02, 200)
    async with asyncio.timeout(5):
        await app.ended.wait()
    assert app.disconnects == 1


async def test_a_body_that_stops_is_a_408_in_the_envelope(client: Client) -> None:
    await client.send(HEAD + b"Content-Length: 100000\r\n\r\nabc")
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout")
    assert b"more slowly than 500 bytes per second" in answer


async def test_the_rest_of_a_refused_body_is_not_awaited_for_long(client: Client) -> None:
    await client.send(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    assert (await client.reader.readuntil(b"refused")).endswith(b"refused")
    assert not await drip(client, 0.02, 200)


async def test_a_slow_body_that_keeps_the_least_rate_passes(client: Client) -> None:
    await client.send(HEAD + b"Content-Length: 6000\r\n\r\n")
    for _ in range(30):
        await client.send(b"x" * 200)
        await asyncio.sleep(0.02)
    assert (await client.reader.readuntil(b" bytes")).endswith(b"6000 bytes")


async def test_a_response_that_nobody_reads_ends(client: Client, app: App) -> None:
    await client.send(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        await app.ended.wait()
    assert app.disconnects == 1


async def test_a_response_that_is_read_slowly_does_not_end(app: App) -> None:
    limits = replace(QUICK, write_seconds=1.5)  # a busy machine may keep the reader waiting for a second
    async with served(app, limits) as url, connected(urlsplit(url).port or 0) as client:
        await client.send(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(60):  # 3 seconds at least
            assert await client.reader.read(1_000_000)
            await asyncio.sleep(0.05)
        assert not app.ended.is_set()


def test_a_server_that_others_configure_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", uvicorn.config.HTTP_PROTOCOLS["auto"])
    monkeypatch.setattr(BoundedProtocol, "limits", BoundedProtocol.limits)
    bound_every_server(QUICK)
    config = uvicorn.Config(App(), log_config=None)
    config.load()
    assert config.http_protocol_class is BoundedProtocol
    assert BoundedProtocol.limits == QUICK
