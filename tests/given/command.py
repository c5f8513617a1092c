"""The command `luthier`, in a process of its own: without a terminal, or in one."""

import asyncio
import os
import pty
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from tests.given.forked_process import Started, start_process

COMMAND = (sys.executable, "-m", "luthier")
CALL_SECONDS = 60.0


@dataclass(frozen=True)
class Called:
    """How a command ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str


async def called(
    *arguments: str,
    stdin: str | bytes = "",
    program: Sequence[str | Path] = COMMAND,
    environment: Mapping[str, str] | None = None,
) -> Called:
    """Without a terminal, in a process of its own: the service that it calls may run in this one.

    `environment` is the whole one of the process; this one's if it is missing. Without these two it is a fork, which
    has imported the command already.
    """
    given = stdin.encode() if isinstance(stdin, str) else stdin
    if program == COMMAND and environment is None:
        return await asyncio.to_thread(_forked, arguments, given)
    process = await asyncio.create_subprocess_exec(
        *(*program, *arguments), stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
    )
    try:
        async with asyncio.timeout(CALL_SECONDS):
            stdout, stderr = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Called(process.returncode, stdout.decode(), stderr.decode())


def _forked(arguments: Sequence[str], stdin: bytes) -> Called:
    with TemporaryFile() as given, TemporaryFile() as stdout, TemporaryFile() as stderr:
        given.write(stdin)
        given.seek(0)
        words = [*COMMAND[1:], *arguments]
        process = start_process(words, os.environ, stdout, given.fileno(), stderr, folder=Path.cwd())
        try:
            code = process.wait(CALL_SECONDS)
        finally:
            process.kill()
        stdout.seek(0)
        stderr.seek(0)
        return Called(code, stdout.read().decode(), stderr.read().decode())


class Terminal:
    """A process whose stdin, stdout and stderr are one terminal."""

    def __init__(self, process: Started, reader: asyncio.StreamReader, ours: int) -> None:
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
            return await asyncio.to_thread(self.process.wait, CALL_SECONDS)

    async def _read(self) -> str:
        try:
            return (await self._reader.read(4096)).decode("utf-8", "replace")
        except OSError:  # Linux's end of a terminal
            return ""


@asynccontextmanager
async def in_terminal(*arguments: str, **environment: str) -> AsyncIterator[Terminal]:
    """The command as a process of its own, killed at the end if it still runs."""
    ours, its = pty.openpty()
    changed = {**os.environ, "TERM": "xterm", **environment}
    with os.fdopen(its, "wb", buffering=0) as stream:
        words = [*COMMAND[1:], *arguments]
        process = await asyncio.to_thread(start_process, words, changed, stream, its, folder=Path.cwd())
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(ours), "rb", buffering=0)
    )
    try:
        yield Terminal(process, reader, ours)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait, CALL_SECONDS)
        transport.close()
        os.close(ours)
