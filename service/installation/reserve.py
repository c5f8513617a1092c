"""Disk space that is kept for deleting: a full disk must not prevent the very thing that frees it.

With the embedded database every delete is a write. So a file beside it holds some space while there is enough; a delete
that fails on a full disk removes that file and is tried again (`api.web.auth`), and the sweep makes it again when there
is room. The space that the sweep frees is what a user deleted.
"""

import asyncio
import os
import shutil
from pathlib import Path

import structlog

log = structlog.get_logger()
FILE = "reserve"
ROOM = 2  # held only where so many times its bytes are free


class DiskReserve:
    """The reserve in one folder; 0 bytes: none. Several processes may hold and release it."""

    def __init__(self, folder: Path, num_bytes: int) -> None:
        self._path = folder / FILE
        self._num_bytes = num_bytes

    async def hold(self) -> None:
        """Makes the file where it is missing and there is room for it."""
        if self._num_bytes:
            await asyncio.to_thread(self._hold)

    async def release(self) -> bool:
        """Removes the file if the disk is full; whether it did."""
        return bool(self._num_bytes) and await asyncio.to_thread(self._release)

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._path.parent).free

    def _hold(self) -> None:
        if self._path.exists() or self._free_bytes() < ROOM * self._num_bytes:
            return
        with self._path.open("wb") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, self._num_bytes)
            except OSError as error:
                log.warning("reserve.not_held", path=str(self._path), reason=error.strerror)
                self._path.unlink(missing_ok=True)

    def _release(self) -> bool:
        if not self._path.exists() or self._free_bytes() >= self._num_bytes:
            return False
        self._path.unlink(missing_ok=True)
        log.error("reserve.released", path=str(self._path))
        return True
