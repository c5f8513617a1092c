"""Artifacts on the local disk of a vLLM: bounded by bytes, and nothing is deleted while vLLM lives.

vLLM reads a folder again whenever it evicted the adapter, and dies with all its requests where the folder is gone; it
does not tell when it is done with one. So folders go only before it starts, the least recently used first.
Knows folders and storage; must not know vLLM.
"""

import asyncio
import os
import shutil
import time
from pathlib import Path
from urllib.parse import quote

import structlog

from service.domain.model import Manifest, artifact_prefix
from service.storage.base import ObjectStore
from workers.files.artifacts import fetch_artifact, read_manifest

log = structlog.get_logger()
FETCH_SECONDS = 300.0
TOUCH_SECONDS = 1.0
START_SHARE = 0.5  # of the limit: what may lie there at the start, so that the rest is free for new names


class CacheFull(Exception):
    """There is no room until vLLM starts anew."""


class ArtifactTooLarge(Exception):
    """The artifact alone is larger than the whole cache."""


def trim(folder: Path, limit_bytes: int) -> list[str]:
    """Makes `folder` ready for a start of vLLM, which must not run; answers what was removed.

    Half of an artifact that a killed vLLM left behind goes, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(".*"):
        shutil.rmtree(partial)
    excess = _total(folder) - limit_bytes * START_SHARE
    removed = []
    for artifact in sorted(_artifacts(folder), key=lambda path: path.stat().st_mtime_ns):
        if excess <= 0:
            break
        excess -= _size(artifact)
        shutil.rmtree(artifact)
        removed.append(artifact.name)
    if removed:
        log.info("vllm.trimmed", removed=len(removed), kept_bytes=_total(folder))
    return removed


class VllmCache:
    """The cache of a running vLLM. Fetches of several names at once share the room that is left."""

    def __init__(self, store: ObjectStore, folder: Path, limit_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._reserved: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    async def manifest(self, name: str) -> Manifest:
        """What storage says of `name`. Raises ObjectMissing, ArtifactCorrupt, StorageError, TimeoutError."""
        async with asyncio.timeout(FETCH_SECONDS):
            return await read_manifest(self._store, name)

    async def fetch(self, manifest: Manifest) -> Path:
        """The verified folder of an artifact.

        Raises CacheFull, ArtifactTooLarge, ObjectMissing, ArtifactCorrupt, StorageError, TimeoutError.
        """
        name = manifest.name
        async with asyncio.timeout(FETCH_SECONDS):
            self._reserve(name, await self._bytes_of(manifest))
            try:
                return await fetch_artifact(self._store, name, self._folder)
            finally:
                self._reserved.pop(name, None)

    async def _bytes_of(self, manifest: Manifest) -> int:
        prefix = artifact_prefix(manifest.name)
        return sum([await self._store.size(prefix + file) for file in manifest.files])

    def _reserve(self, name: str, size: int) -> None:
        if size > self._limit_bytes:
            raise ArtifactTooLarge(f"{size} bytes; LUTHIER_ENGINE_CACHE_BYTES is {self._limit_bytes}.")
        if folder_of(self._folder, name).is_dir():
            return  # here already: a fetch checks it, or replaces it by as much
        if _total(self._folder) + sum(self._reserved.values()) + size > self._limit_bytes:
            raise CacheFull(name)
        self._reserved[name] = size


class Touches:
    """Notes in the folders which names are in use, for the order of `trim`; cheap enough for every step of vLLM."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._touched: dict[str, float] = {}

    def touch(self, name: str) -> None:
        now = time.monotonic()
        if now - self._touched.get(name, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[name] = now
            os.utime(folder_of(self._folder, name))


def folder_of(cache: Path, name: str) -> Path:
    """Where `workers.files.artifacts.fetch_artifact` puts it."""
    return cache / quote(name, safe="")


def _artifacts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _total(folder: Path) -> int:
    return sum(_size(artifact) for artifact in _artifacts(folder))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
