"""A line to a server that breaks on purpose: resets, cuts, silence and refusals, counted out in advance."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

PIECE_BYTES = 16384
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>later</Message></Error>"
RESET_AT_CLOSE = struct.pack("ii", 1, 0)

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class Cut:
    """The end of a connection after so many bytes in one direction: with a reset, or as if all had been said."""

    direction: Direction
    after_bytes: int
    reset: bool = True


@dataclass
class BadLine:
    """A proxy on loopback. Each new connection takes one trouble, as long as there are any; then all is well."""

    target_port: int
    cuts: list[Cut] = field(default_factory=list)
    silent: int = 0  # connections on which nothing is ever answered
    refusals: int = 0  # connections whose first request is answered with 503 SlowDown
    connections: int = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """The endpoint to use instead of the server's."""
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            self.port: int = server.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{self.port}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            with contextlib.suppress(OSError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            return  # the test is over: asyncio's server reports a cancelled handler as an error
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusals:
            self.refusals -= 1
            await self._refuse(reader, writer)
        elif self.silent:
            self.silent -= 1
            while await reader.read(PIECE_BYTES):
                pass
        else:
            await self._forward(reader, writer, self.cuts.pop(0) if self.cuts else None)

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
        if b"100-continue" not in head:
            await reader.readexactly(length)
        writer.write(b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Type: application/xml\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(SLOW_DOWN), SLOW_DOWN))
        await writer.drain()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Cut | None) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target_port)
        limits = {cut.direction: cut.after_bytes} if cut is not None else {}
        ways = [
            asyncio.create_task(_pipe(reader, to_server, limits.get("up"))),
            asyncio.create_task(_pipe(from_server, writer, limits.get("down"))),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            to_server.close()
            if cut is not None and cut.reset:
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
                writer.transport.abort()


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter, limit_bytes: int | None) -> None:
    passed = 0
    while piece := await source.read(PIECE_BYTES):
        if limit_bytes is not None and passed + len(piece) >= limit_bytes:
            target.write(piece[: limit_bytes - passed])
            await target.drain()
            return
        passed += len(piece)
        target.write(piece)
        await target.drain()
