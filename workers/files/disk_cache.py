"""The disk cache of an engine: artifacts fetched by name, bounded by bytes, the least recently used ones deleted first.

Both engines use it, vLLM inside its own environment; they differ in when a folder may be deleted. The embedded engine
needs a folder only while it reads it (`lend`). vLLM reads a folder again after it has evicted the adapter, fails with
all its requests if the folder is missing, and does not report when it no longer needs one: so nothing is deleted while
it runs (`keep`), and room is made before it starts (`trim`).
"""

import asyncio
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from service.domain.model import Manifest
from service.domain.storage_keys import artifact_prefix
from service.storage.base import ObjectStore
from workers.files.artifacts import PARTIAL, cached_folder, fetch_artifact, read_manifest

FETCH_SECONDS = 300.0
TOUCH_SECONDS = 1.0


class CacheFull(Exception):
    """There is no room until the cache is trimmed."""


class ArtifactTooLarge(Exception):
    """The artifact alone is larger than the whole cache."""


class DiskCache:
    """The cache of a running engine. Fetches of several names at once share the room that is left."""

    def __init__(self, store: ObjectStore, folder: Path, limit_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lent: Counter[str] = Counter()  # by folder name
        self._reserved: dict[str, int] = {}  # by artifact name
        folder.mkdir(parents=True, exist_ok=True)

    async def manifest(self, name: str) -> Manifest:
        """The manifest in storage. Raises ObjectMissing, ArtifactCorrupt, StorageError, TimeoutError."""
        async with asyncio.timeout(FETCH_SECONDS):
            return await read_manifest(self._store, name)

    @asynccontextmanager
    async def lend(self, name: str) -> AsyncIterator[Path]:
        """The verified folder of `name`; it is not deleted before the block ends.

        Raises ObjectMissing, ArtifactCorrupt, StorageError, TimeoutError.
        """
        key = cached_folder(self._folder, name).name
        self._lent[key] += 1
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                folder = await fetch_artifact(self._store, name, self._folder)
            await asyncio.to_thread(os.utime, folder)
            yield folder
        finally:
            self._lent[key] -= 1
        await self._make_room()

    async def keep(self, manifest: Manifest) -> Path:
        """The verified folder of an artifact, which is not deleted before `trim`.

        Raises CacheFull, ArtifactTooLarge, ObjectMissing, ArtifactCorrupt, StorageError, TimeoutError.
        """
        name = manifest.name
        async with asyncio.timeout(FETCH_SECONDS):
            self._reserve(name, await self._bytes_of(manifest))
            try:
                return await fetch_artifact(self._store, name, self._folder)
            finally:
                self._reserved.pop(name, None)

    async def _make_room(self) -> None:
        sizes = await asyncio.to_thread(_sizes, self._folder)
        # Renamed before anything else runs, so that no concurrent fetch finds half of one.
        hidden = [_hide(folder) for folder in _excess(sizes, self._limit_bytes, in_use=+self._lent)]
        for folder in hidden:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _bytes_of(self, manifest: Manifest) -> int:
        prefix = artifact_prefix(manifest.name) + manifest.served_folder
        return sum([await self._store.size(prefix + file) for file in manifest.served_files])

    def _reserve(self, name: str, size: int) -> None:
        if size > self._limit_bytes:
            raise ArtifactTooLarge(f"{size} bytes; LUTHIER_ENGINE_CACHE_BYTES is {self._limit_bytes}.")
        if cached_folder(self._folder, name).is_dir():
            return  # in the cache: a fetch checks it, or replaces it by as many bytes
        if sum(_sizes(self._folder).values()) + sum(self._reserved.values()) + size > self._limit_bytes:
            raise CacheFull(name)
        self._reserved[name] = size


class Touches:
    """Marks folders as used, for the order of `trim`; cheap enough to call in every step."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._touched: dict[str, float] = {}

    def touch(self, name: str) -> None:
        now = time.monotonic()
        if now - self._touched.get(name, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[name] = now
            os.utime(cached_folder(self._folder, name))


def trim(folder: Path, limit_bytes: float) -> list[str]:
    """Deletes artifacts down to `limit_bytes`, and incomplete ones of a killed engine; returns the folders' names.

    Only while no engine uses the cache.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)
    excess = _excess(_sizes(folder), limit_bytes)
    for artifact in excess:
        shutil.rmtree(_hide(artifact))
    return [artifact.name for artifact in excess]


def _sizes(cache: Path) -> dict[Path, int]:
    """Bytes of every artifact, the least recently used first."""
    folders = [path for path in cache.iterdir() if not path.name.startswith(PARTIAL)]
    folders.sort(key=lambda path: path.stat().st_mtime_ns)
    return {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}


def _excess(sizes: dict[Path, int], limit_bytes: float, in_use: Collection[str] = ()) -> list[Path]:
    """Which of these to delete, so that the others have at most `limit_bytes` together."""
    excess, found = sum(sizes.values()) - limit_bytes, []
    for folder, size in sizes.items():
        if excess > 0 and folder.name not in in_use:
            excess -= size
            found.append(folder)
    return found


def _hide(artifact: Path) -> Path:
    """Renames it so that it is no artifact any more: what a kill leaves of it, the next `trim` deletes."""
    return artifact.rename(artifact.with_name(PARTIAL + secrets.token_hex(8)))
