"""Rings between the processes of one machine: each listener has a named pipe in a folder; a ring is a byte in each.

Nobody wakes up to see whether there was a ring. A listener that has died leaves a pipe that nobody reads, which the
next ring removes. A pipe that is full has rung already. Used by `service.queue.embedded`; knows no jobs.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

log = structlog.get_logger()
READ_BYTES = 4096


class Pipes:
    """The pipes of one folder, and this process' own among them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"

    def ring(self) -> None:
        """Wakes every other listener. A folder that is missing has none."""
        with suppress(OSError):
            for pipe in self._folder.iterdir():
                if pipe.name != self._name and not pipe.name.startswith("."):
                    _write(pipe)

    @contextmanager
    def listening(self, rung: Callable[[], None]) -> Iterator[bool]:
        """Calls `rung` at every ring until the block ends. False where this folder can have no pipes."""
        pipe, coming = self._folder / self._name, self._folder / f".{self._name}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.mkfifo(coming, 0o600)
            reader = os.open(coming, os.O_RDWR | os.O_NONBLOCK)  # a writer too: so it never reads as ended
            coming.rename(pipe)  # only now: a pipe that nobody reads is removed
        except OSError as error:
            log.info("bell.no_pipe", reason=type(error).__name__)
            yield False
            return
        loop = asyncio.get_running_loop()

        def read() -> None:
            with suppress(BlockingIOError):
                os.read(reader, READ_BYTES)
            rung()

        loop.add_reader(reader, read)
        try:
            yield True
        finally:
            loop.remove_reader(reader)
            os.close(reader)
            pipe.unlink(missing_ok=True)


def _write(pipe: Path) -> None:
    try:
        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads it
        pipe.unlink(missing_ok=True)
        return
    try:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(writer, b"!")
    finally:
        os.close(writer)
