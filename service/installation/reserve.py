"""Disk space that is kept for deleting: a full disk must not prevent the very thing that frees it.

With the embedded database every delete is a write. So a file beside it holds some space while there is enough; a delete
or a start that fails on a full disk removes that file and is tried again (`backed`), and the sweep makes it again when
there is room. The space that the sweep frees is what a user deleted.
"""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import structlog

from service.domain.errors import Unavailable
from service.storage import StorageUnusable

T = TypeVar("T")
log = structlog.get_logger()
FILE = "reserve"
ROOM = 2  # held only where so many times its bytes are free
FULL_BYTES = 128 * 1024  # with fewer free, SQLite cannot make the files that it needs to open a database


def is_full(folder: Path) -> bool:
    """Whether the disk of the folder has no space left. Raises OSError where it cannot be asked."""
    return shutil.disk_usage(folder).free < FULL_BYTES


class DiskReserve:
    """The reserve in one folder; 0 bytes: none. Several processes may hold and release it."""

    def __init__(self, folder: Path, num_bytes: int, *, embedded: bool) -> None:
        """`embedded`: whether the database is in the folder, so that nothing works while its disk is full."""
        self._path = folder / FILE
        self._num_bytes = num_bytes
        self._embedded = embedded

    async def hold(self) -> None:
        """Makes the file where it is missing and there is room for it."""
        if self._num_bytes:
            await asyncio.to_thread(self._hold)

    async def release(self) -> bool:
        """Removes the file if the disk is full; whether it did."""
        return bool(self._num_bytes) and await asyncio.to_thread(self._release)

    async def backed(self, act: Callable[[], Awaitable[T]]) -> T:
        """What `act` returns; where it fails on a full disk, it is called again with the space of the reserve."""
        try:
            return await act()
        except (Unavailable, StorageUnusable):
            if not await self.release():
                raise
        return await act()

    async def backed_start(self, act: Callable[[], Awaitable[T]]) -> T:
        """As `backed`. Raises ValueError, with what to do, where the disk is full all the same."""
        try:
            return await self.backed(act)
        except (Unavailable, StorageUnusable) as error:
            folder = self._path.parent.absolute()
            if self._embedded and await asyncio.to_thread(is_full, folder):
                raise ValueError(f"the disk of {folder} is full: free space there, and start again") from error
            raise

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
