"""The HTTP server of API and engine: uvicorn on httptools, with a bound on everything that a connection may hold.

uvicorn bounds neither a request's head nor the time that it takes, and waits without end for a client that does not
read. Of its two parsers httptools served more than twice as many requests per second as h11, with these limits too:

    head    bytes and number of headers, trailers included (RFC 9112); its end must come within `head_seconds`
    body    at least `bytes_per_second`, after a first `body_seconds`; time in which we do not read is not counted
    write   progress within `write_seconds`, or the connection is dropped
    idle    the next request within `idle_seconds`: longer than load balancers keep a connection (60 s), which else
            may send a request just when we close it

The times are those of Apache's mod_reqtimeout and of nginx. What a body holds is checked by whoever reads it. Also
used inside vLLM's environment, by its plugin.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

URL_LIMIT_BYTES = 16 * 1024
DATE_SECONDS = 1.0


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may hold and how slow it may be."""

    head_bytes: int = 64 * 1024
    headers: int = 128
    head_seconds: float = 20.0
    body_seconds: float = 20.0
    bytes_per_second: int = 500
    write_seconds: float = 60.0
    idle_seconds: float = 75.0  # between two requests
    check_seconds: float = 5.0  # how often a body that is being received is looked at
    linger_seconds: float = 10.0  # for the rest of a body, once the response is sent


def serving(
    app: ASGIApp, host: str, port: int, limits: ConnectionLimits, *, shutdown_seconds: int, lifespan: bool = True
) -> uvicorn.Config:
    """The configuration of a server of `app`, which logs nothing itself."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=bounded_protocol(limits),
        ws="none",
        lifespan="on" if lifespan else "off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=shutdown_seconds,
    )


class HttpServer(uvicorn.Server):
    """uvicorn's server, which looks ten times a second whether it has to end; this one is woken by the signal.

    It still wakes up once a second, for the Date header of its responses.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(DATE_SECONDS):
                    await self._ending.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ending.set)


def bounded_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """uvicorn's protocol with these limits."""
    return type("ConnectionProtocol", (BoundedProtocol,), {"limits": limits})


def bound_every_server(limits: ConnectionLimits) -> None:
    """For a server of this process whose configuration is not ours: vLLM's own limits are for h11, which it has not."""
    BoundedProtocol.limits = limits
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:BoundedProtocol"


class _Refused(Exception):
    """Raised in a callback of the parser, which ends the parsing."""


class JoinedWrites(asyncio.Transport):
    """The connection, for one response: its head is written together with what follows at once.

    Most bodies are there when their head is, and each write is a call of the system and wakes up the client. A head
    that nothing follows goes out when the loop comes round.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._begun = False
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._begun:
            head, self._head = self._head, b""
            self._transport.write(head + data if head else data)
        else:
            self._begun, self._head = True, bytes(data)
            self._loop.call_soon(self._write_head)

    def close(self) -> None:
        self._write_head()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _write_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which counts what it receives and watches how long that takes."""

    limits = ConnectionLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._in_body = False
        self._num_headers = 0
        self._head_bytes = 0
        self._came_to_something = False  # whether the last bytes ended a head or were a body's
        self._idle_bytes = 0  # received since then: a head, a trailer, or a chunk's extension
        self._body_bytes = 0
        self._waited_seconds = 0.0
        self._lingered_seconds = 0.0
        self._unwritten_bytes = 0
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, str] | None = None
        self.timeout_keep_alive = self.limits.idle_seconds  # type: ignore[assignment]  # whole seconds, says uvicorn

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading_timer()
        self._stop_writing_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._came_to_something = False
        was_in_body = self._in_body
        super().data_received(data)
        self._idle_bytes = 0 if self._came_to_something else self._idle_bytes + len(data)
        if self.transport.is_closing():
            return
        if self._idle_bytes > self.limits.head_bytes:
            self._refuse(*self._head_too_large())
        elif self._in_body:
            if not was_in_body or self._reading is None:
                self._await_body()
        elif self._in_head or self._idle_bytes:
            if was_in_body or self._reading is None:
                self._await_head()
        else:
            self._stop_reading_timer()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*(self._refusal or (400, msg)))

    # The parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._num_headers, self._head_bytes = True, 0, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > URL_LIMIT_BYTES:
            self._refusal = (414, f"The URL of a request may have at most {URL_LIMIT_BYTES:,} bytes.")
            raise _Refused

    def on_header(self, name: bytes, value: bytes) -> None:
        self._num_headers += 1
        self._head_bytes += len(name) + len(value)
        if self._num_headers > self.limits.headers or self._head_bytes > self.limits.head_bytes:
            self._refusal = self._head_too_large()
            raise _Refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.cycle.transport = JoinedWrites(self.transport, self.loop)
        self._came_to_something = True
        self._in_head, self._in_body = False, True
        self._body_bytes = 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._came_to_something = True
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._came_to_something = True
        self._in_body = False

    # Reading in time

    def _await_head(self) -> None:
        self._stop_reading_timer()
        self._reading = self.loop.call_later(self.limits.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._responding():  # the next head may take its time: nothing is read for it yet
            self._await_head()
        elif self._idle_bytes:
            self._refuse(408, f"The head of the request did not come within {self.limits.head_seconds:g} seconds.")
        else:
            self.transport.close()

    def _await_body(self) -> None:
        self._stop_reading_timer()
        self._waited_seconds = self._lingered_seconds = 0.0
        self._reading = self.loop.call_later(self.limits.check_seconds, self._check_body)

    def _check_body(self) -> None:
        limits = self.limits
        if self.cycle.response_complete:
            self._lingered_seconds += limits.check_seconds
        elif not (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            self._waited_seconds += limits.check_seconds
        if self._waited_seconds > limits.body_seconds + self._body_bytes / limits.bytes_per_second:
            self._refuse(408, f"The body came more slowly than {limits.bytes_per_second} bytes per second.")
        elif self._lingered_seconds >= limits.linger_seconds:
            self.transport.close()
        else:
            self._reading = self.loop.call_later(limits.check_seconds, self._check_body)

    # Writing in time

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_writing_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size() and self._writing is None:
            self._await_reader()

    def _await_reader(self) -> None:
        self._stop_writing_timer()
        self._unwritten_bytes = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(self.limits.write_seconds, self._check_reader)

    def _check_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._writing = None
        if left and left >= self._unwritten_bytes:
            self.transport.abort()
        elif left:
            self._await_reader()

    # Refusing

    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _head_too_large(self) -> tuple[int, str]:
        limits = self.limits
        return 431, f"The head of a request may have at most {limits.headers} headers and {limits.head_bytes:,} bytes."

    def _refuse(self, status: int, message: str) -> None:
        """OpenAI's envelope, unless a response has begun, and the end of the connection."""
        self._stop_reading_timer()
        if self.transport.is_closing():
            return
        if self._responding() and (self.cycle.response_started or not self._in_body):
            self.transport.close()
            return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()
        head = STATUS_LINE[status] + b"content-type: application/json\r\nconnection: close\r\n"
        self.transport.write(b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body))
        self.transport.close()

    def _stop_reading_timer(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _stop_writing_timer(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
