"""The parent, from its child's side: how a process ends when its parent has ended, even by `kill -9`.

Two ways, because a pipe reaches direct children only. **A pipe**: the parent holds the other end of our stdin, and
the kernel closes it with the parent. **A lock**: the holder locks a file, the kernel unlocks it with the holder, and
every watcher then gets the lock; children of children may watch too. The other side is `service.processes.child`.

A service manager sends SIGTERM to every process at once. A process whose end is its parent's decision ignores it.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

GRACE_SECONDS = 30.0
ENDING = (signal.SIGTERM, signal.SIGINT)


def end_with_parent(grace_seconds: float = GRACE_SECONDS) -> None:
    """From now on this process gets SIGTERM when its stdin ends, and exits after `grace_seconds` in any case."""
    stream = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  read until the end of this process
    hear_parent(stream, lambda _line: None, lambda: _end(grace_seconds))


def hear_parent(stream: BinaryIO, take: Callable[[bytes], None], end: Callable[[], None]) -> None:
    """Hands each line of `stream` to `take`, in a thread of its own; calls `end` when the parent has closed it.

    `end` is called too when `take` raises: without its thread, the process would never notice its parent's end.
    """

    def read() -> None:
        try:
            for line in stream:
                take(line)
        finally:
            end()

    threading.Thread(target=read, name="parent", daemon=True).start()


def claim_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """stdin and stdout for a protocol with the parent alone, whatever a library reads or prints.

    From now on `print` and everything else that writes to stdout goes to stderr, and reads of stdin return nothing.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(incoming, "rb"), os.fdopen(outgoing, "wb")


def leave_signals_to_parent() -> None:
    """From now on SIGTERM and SIGINT change nothing here: the parent gets them as well, and ends this process in time.

    They are blocked as well as ignored, so that they change nothing in the programs that this process starts either.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


def take_signals_again() -> None:
    """Undoes `leave_signals_to_parent`, here or in a fork; a signal that came in between is delivered now."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock on `path` while the block lasts. Raises BlockingIOError when another process holds it."""
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def die_with_holder(path: Path) -> None:
    """From now on this process, and each that it forks, is killed with its group as soon as nobody holds `path`."""
    _watch_lock(path)
    os.register_at_fork(after_in_child=lambda: _watch_lock(path))


def _end(grace_seconds: float) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds)
    os._exit(1)


def _watch_lock(path: Path) -> None:
    threading.Thread(target=_end_with_lock, args=[path], name="lifeline", daemon=True).start()


def _end_with_lock(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
    except FileNotFoundError:
        pass  # the holder ended and cleaned up before this process began to watch
    os.killpg(os.getpgrp(), signal.SIGKILL)
