"""One claim of a merge: the artifact is fetched, merged in a process of its own, and stored as one zip archive.

Needs no slot and no trainer, but memory for the whole base. The archive's entries are stored without compression, in
a fixed order and with a fixed date.
"""

import asyncio
import shutil
import zipfile
from pathlib import Path

import structlog

from service.domain.errors import JobError
from service.domain.model import MANIFEST
from service.domain.storage_keys import artifact_prefix, merged_key
from service.operations.merge_work import HeldMerge
from service.operations.model_content import DATE
from service.recipes.base import Base
from service.storage import ObjectMissing
from workers.files.artifacts import ArtifactCorrupt, read_manifest
from workers.files.disk import disk_errors
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.jobs.loading import BaseNotLoaded
from workers.jobs.staging import fetch_folder, store_file
from workers.trainer.errands import MergeOrder, MergeResult
from workers.trainer.parent.errand import ErrandCrashed, run_errand

log = structlog.get_logger()
MODULE = "workers.trainer.process.merge"
ARCHIVE = "model.zip"


class ModelMerging:
    """One claim of one merge."""

    def __init__(self, held: HeldMerge, base: Base, scratch: Path) -> None:
        self._ctx = held.ctx
        self._held = held
        self._merge = held.merge
        self._base = base
        self._folder = scratch / f"{held.merge.id}-{held.attempt}"

    async def run(self) -> None:
        """Stores the merged model, or fails. Raises LeaseLost, BaseNotLoaded, and what unavailable parts raise."""
        log.info("merge.claimed", model=self._merge.model, attempt=self._held.attempt)
        try:
            with disk_errors():
                await self._run()
        except JobError as error:
            await self._held.fail(error)
            log.info("merge.failed", model=self._merge.model, code=error.code)
        except ErrandCrashed:
            log.warning("merge.crashed", model=self._merge.model, crashes=await self._held.crashed())
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _run(self) -> None:
        hashes = await self._fetch()
        order = MergeOrder(base=self._base, hashes=hashes, threads=self._ctx.settings.trainer_threads)
        result = await run_errand(MODULE, order, self._folder, MergeResult)
        if result.base_unusable is not None:
            raise BaseNotLoaded(self._base.id, result.base_unusable)
        archive = self._folder / ARCHIVE
        await asyncio.to_thread(_pack, self._folder / "merged", archive)
        key, num_bytes = merged_key(self._merge.id), archive.stat().st_size
        sha256 = await store_file(self._ctx.storage, archive, key)
        if not await self._held.finish(num_bytes, sha256):
            await self._ctx.storage.delete(key)
        log.info("merge.done", model=self._merge.model, bytes=num_bytes)

    async def _fetch(self) -> dict[str, str]:
        """The artifact's files; returns the hashes of the base that it belongs to. Raises JobError."""
        name, folder = self._merge.model, self._folder / "adapter"
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        try:
            manifest = await storage_retry(read_manifest)(self._ctx.storage, name)
            await fetch_folder(self._ctx.storage, artifact_prefix(name), manifest.files, folder)
        except (ArtifactCorrupt, ObjectCorrupt, ObjectMissing) as error:
            message = f"The artifact of '{name}' is missing or damaged in storage."
            raise JobError("artifact_unusable", message, "model") from error
        await asyncio.to_thread((self._folder / MANIFEST).write_text, manifest.model_dump_json(indent=2))
        return manifest.base_hashes


def _pack(folder: Path, archive: Path) -> None:
    """Each file goes once it is packed: the disk holds the model little more than once."""
    with zipfile.ZipFile(archive, "w") as written:
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(path.name, DATE)
            entry.file_size = path.stat().st_size
            entry.external_attr = 0o600 << 16
            with path.open("rb") as source, written.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1024 * 1024)
            path.unlink()
