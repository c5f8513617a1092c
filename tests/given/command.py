"""The command `luthier`, called in this process as its console script is, or started in a terminal of its own."""

import asyncio
import contextlib
import io
import os
import pty
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TextIO
from unittest.mock import patch

from luthier.cli.main import main


@dataclass(frozen=True)
class Called:
    """How a command ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str


async def called(*arguments: str, stdin: str = "") -> Called:
    """Without a terminal, in a thread: the service that it calls runs in this one.

    `sys.stdout` is replaced in this thread, where the service logs: `print` of Python 3.11 holds no reference of its
    own to the file that it writes to, and crashes if another thread replaces it meanwhile.
    """
    stdout, stderr = OfThread(sys.stdout), OfThread(sys.stderr)
    with (
        patch.object(sys, "argv", ["luthier", *arguments]),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        code = await asyncio.to_thread(_call, stdout, stderr)
    return Called(code, stdout.getvalue(), stderr.getvalue())


def _call(*written: "OfThread") -> int:
    """The exit code of the command, whose arguments are in place."""
    for one in written:
        one.thread = threading.get_ident()
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


class OfThread(io.StringIO):
    """What one thread writes; what others write, the service's log, goes to `others`."""

    def __init__(self, others: TextIO) -> None:
        super().__init__()
        self.thread: int | None = None
        self._others = others

    def write(self, text: str) -> int:
        return super().write(text) if threading.get_ident() == self.thread else self._others.write(text)


class Terminal:
    """A process whose stdin, stdout and stderr are one terminal."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, ours: int) -> None:
        self.process = process
        self.shown = ""
        self._reader, self._ours = reader, ours

    def types(self, text: str) -> None:
        os.write(self._ours, text.encode())

    async def shows(self, text: str) -> str:
        """What was shown until `text` was; raises TimeoutError if it never is."""
        async with asyncio.timeout(30):
            while text not in self.shown:
                if not (chunk := await self._read()):
                    raise AssertionError(f"it ended without showing {text!r}: {self.shown}")
                self.shown += chunk
        return self.shown

    async def ends(self) -> int:
        """Its exit code; the rest of what it shows is read."""
        async with asyncio.timeout(30):
            while chunk := await self._read():
                self.shown += chunk
            return await self.process.wait()

    async def _read(self) -> str:
        try:
            return (await self._reader.read(4096)).decode("utf-8", "replace")
        except OSError:  # Linux's end of a terminal
            return ""


@asynccontextmanager
async def in_terminal(*arguments: str, **environment: str) -> AsyncIterator[Terminal]:
    """The command as a process of its own, killed at the end if it still runs."""
    ours, its = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "luthier", *arguments),
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        start_new_session=True,
    )
    os.close(its)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(ours), "rb", buffering=0)
    )
    try:
        yield Terminal(process, reader, ours)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        transport.close()
        os.close(ours)
