"""A snapshot on its way to the disk, beside the training: hashing and writing take a thread of their own.

A disk that blocks holds up the one job whose snapshot it is. Knows no jobs and no turns.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from workers.trainer.process.snapshot import Snapshot


class SnapshotWrite:
    """Begins at once. `woken` is called from the thread at the end."""

    def __init__(self, snapshot: Snapshot, folder: Path, woken: Callable[[], None]) -> None:
        self.step = snapshot.state.step
        self.folder = folder
        self._snapshot = snapshot
        self._woken = woken
        self._done = threading.Event()
        self._error: BaseException | None = None
        # A daemon: the process must be able to end while the disk blocks.
        threading.Thread(target=self._write, name="snapshot", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether `folder` is complete, or the writing failed."""
        return self._done.is_set()

    def check(self) -> None:
        """Once done: raises what it failed with, DiskFull among it."""
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        try:
            self._snapshot.write(self.folder)
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()
            self._woken()
