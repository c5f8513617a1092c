"""Artifacts on the engine's local disk: bounded by bytes, the least recently used ones go first.

Knows folders and storage; must not know the model in memory, which needs a folder only while it reads it.
"""

import asyncio
import os
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from service.storage.base import ObjectStore
from workers.files.artifacts import fetch_artifact

FETCH_SECONDS = 300.0
_HIDDEN = ".partial-"  # begins what is no whole artifact: on its way in (`workers.files.artifacts`) or out


class Shelf:
    """The cache folder. One engine owns it; what a killed one left unfinished is swept away."""

    def __init__(self, store: ObjectStore, folder: Path, limit_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._taken: Counter[str] = Counter()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_HIDDEN}*"):
            shutil.rmtree(left, ignore_errors=True)

    @asynccontextmanager
    async def artifact(self, name: str) -> AsyncIterator[Path]:
        """The verified folder of `name`; it stays until the block ends.

        Raises ObjectMissing, ArtifactCorrupt, StorageError, TimeoutError.
        """
        key = quote(name, safe="")
        self._taken[key] += 1
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                folder = await fetch_artifact(self._store, name, self._folder)
            await asyncio.to_thread(os.utime, folder)
            yield folder
        finally:
            self._taken[key] -= 1
        await self._trim()

    async def _trim(self) -> None:
        sizes = await asyncio.to_thread(_sizes, self._folder)
        excess = sum(sizes.values()) - self._limit_bytes
        removed = []
        for folder, size in sizes.items():
            if excess > 0 and not self._taken[folder.name]:
                excess -= size
                # Renamed at once, so that nobody who asks from here on finds half of it.
                removed.append(folder.rename(folder.with_name(_HIDDEN + secrets.token_hex(8))))
        for folder in removed:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _sizes(root: Path) -> dict[Path, int]:
    """Bytes of every artifact, the least recently used first."""
    folders = [path for path in root.iterdir() if not path.name.startswith(_HIDDEN)]
    folders.sort(key=lambda path: path.stat().st_mtime_ns)
    return {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
