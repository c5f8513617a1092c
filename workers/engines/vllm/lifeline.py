"""A lifeline: processes that must not outlive another one, however that one ends and however they were started.

The holder keeps a lock on a file. The kernel lets it go when the holder is gone, also after `kill -9`; whoever watches
gets it then, and ends its own process group. Needs no inherited pipe, so children of children may watch too.
"""

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock while the block lasts. Raises BlockingIOError when another process holds it."""
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def die_with(path: Path) -> None:
    """From now on this process, and each that it forks, ends with its group as soon as nobody holds the lock."""
    _watch(path)
    os.register_at_fork(after_in_child=lambda: _watch(path))


def _watch(path: Path) -> None:
    threading.Thread(target=_end_with, args=[path], name="lifeline", daemon=True).start()


def _end_with(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
    except FileNotFoundError:
        pass  # the holder ended and cleaned up before this process came to watch
    os.killpg(os.getpgrp(), signal.SIGKILL)
