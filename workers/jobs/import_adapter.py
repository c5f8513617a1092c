"""The first claim of an import: what was sent is unpacked, examined in a process of its own, and stored as an artifact.

Needs no slot and no trainer. Whatever is wrong with the adapter is one sentence of the import's error; a process that
crashes while it reads the adapter counts against the import, as a trainer's crash does against its job.
"""

import asyncio
import shutil
import time
from pathlib import Path

import structlog

from service.domain import ids
from service.domain.errors import InvalidRequest, JobError
from service.domain.job import Publication
from service.domain.model import Manifest, check_suffix, model_name
from service.domain.model_import import OBJECTIVE, named_after
from service.operations import bases, lookups
from service.operations.bases import BaseRecord
from service.operations.import_work import HeldImport
from service.recipes.base import Base
from service.storage import ObjectMissing
from workers.files.artifacts import store_artifact
from workers.files.disk import disk_errors
from workers.files.transfer import ObjectCorrupt, storage_retry
from workers.jobs.agreement import store_agreement
from workers.jobs.loading import BaseNotLoaded
from workers.jobs.sent_adapter import unpack
from workers.jobs.staging import fetch_segments
from workers.trainer.errands import Examined, ExamineOrder, ExamineResult
from workers.trainer.parent.errand import ErrandCrashed, run_errand

log = structlog.get_logger()
MODULE = "workers.trainer.process.examine"


class AdapterImport:
    """One claim of one import."""

    def __init__(self, held: HeldImport, base: Base, scratch: Path) -> None:
        self._ctx = held.ctx
        self._held = held
        self._imported = held.imported
        self._base = base
        self._folder = scratch / f"{held.imported.id}-{held.attempt}"

    async def run(self) -> None:
        """Stores the adapter for its announcement, or fails the import.

        Raises LeaseLost, BaseNotLoaded, and what unavailable parts raise.
        """
        log.info("import.claimed", import_id=self._imported.id, attempt=self._held.attempt)
        try:
            with disk_errors():
                await self._run()
        except JobError as error:
            await self._held.fail(error)
            log.info("import.failed", import_id=self._imported.id, code=error.code)
        except ErrandCrashed:
            log.warning("import.crashed", import_id=self._imported.id, crashes=await self._held.crashed())
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _run(self) -> None:
        await asyncio.to_thread((self._folder / "sent").mkdir, parents=True, exist_ok=True)
        await self._fetch()
        found = await self._examine()
        await bases.register(
            self._ctx, BaseRecord(self._base.id, self._base.public_source, found.revision, found.hashes)
        )
        publication = await self._store(found)
        await self._held.stored(publication, found.tuning)

    async def _fetch(self) -> None:
        """The files of the project, unpacked into `sent/`."""
        fetched = {}
        for number, (name, id) in enumerate(sorted(self._imported.files.items())):
            file = await lookups.find_file(self._ctx, id)
            if file is None:
                raise JobError("deleted_file", f"The import failed because the file {id} was deleted.", "file_id")
            fetched[name] = self._folder / f"fetched-{number}"
            try:
                await fetch_segments(self._ctx.storage, file[1], fetched[name])
            except (ObjectCorrupt, ObjectMissing) as error:
                message = f"The file {id} is missing or damaged in storage; please send the adapter again."
                raise JobError("file_unavailable", message, "file_id") from error
        limit_bytes = self._ctx.settings.import_limit_bytes
        await asyncio.to_thread(unpack, fetched, self._folder / "sent", limit_bytes)

    async def _examine(self) -> Examined:
        order = ExamineOrder(base=self._base, threads=self._ctx.settings.trainer_threads)
        result = await run_errand(MODULE, order, self._folder, ExamineResult)
        if result.base_unusable is not None:
            raise BaseNotLoaded(self._base.id, result.base_unusable)
        if result.found is None:
            raise ErrandCrashed(MODULE)
        return result.found

    async def _store(self, found: Examined) -> Publication:
        """The artifact, and the rows that an engine is compared on."""
        imported = self._imported
        organization = (await lookups.find_installation(self._ctx)).organization
        try:
            check_suffix(named_after(imported), organization, imported.suffix)
        except InvalidRequest as error:
            raise JobError("invalid_suffix", error.message, error.param) from error
        name = model_name(named_after(imported), organization, imported.suffix, ids.publication_id())
        manifest = Manifest(
            name=name,
            job_id=imported.id,
            step=0,
            base=imported.base,
            base_source=self._base.public_source,
            base_revision=found.revision,
            base_hashes=found.hashes,
            tuning=str(found.tuning["type"]),
            objective=OBJECTIVE,
            hyperparameters=found.tuning,
            seed=0,
            parent=None,
            data_hashes={},
            environment=found.environment,
            metrics={},
            files={},  # filled in by store_artifact
            created_at=int(time.time()),
        )
        await storage_retry(store_artifact)(self._ctx.storage, self._folder / "artifact", manifest)
        key, sha256 = await store_agreement(self._ctx.storage, imported.id, name, found.rows)
        return Publication(name, 0, {}, sample=key, sample_sha256=sha256)
