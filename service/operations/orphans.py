"""Stored bytes that no row of the database names: a process died after storing them and before saying so.

Found by listing the store, a stretch per sweep. Only what is old goes: younger bytes may be on their way to their row.
Adapters stay while their job has not ended, however old they are. Run by `service.operations.chores`.
"""

import time
from contextlib import aclosing

import structlog
from pydantic import ValidationError

from service.domain.model import MANIFEST, Manifest
from service.domain.storage_keys import INSTALLATION, artifact_prefix, owner_of
from service.installation.context import Context
from service.operations import sweeps
from service.storage import ObjectExists, ObjectMissing, StoredObject
from service.storage.base import one_chunk

log = structlog.get_logger()
PAGE = 500
SWEEP_OBJECTS = 20_000  # looked at per sweep; the next one continues where this one stopped
MANIFEST_BYTES = 1024 * 1024


class OrphanSweep:
    """`sweep` now and then; it remembers how far it came."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._after = ""

    async def sweep(self) -> None:
        """Looks at the next stretch of the store. Several processes may do it at once."""
        if not await self._store_is_ours():
            return
        age_seconds = self._ctx.settings.orphan_age_seconds
        unfinished, removed = await self._ctx.storage.remove_unfinished(age_seconds), 0
        written_before, seen, page = time.time() - age_seconds, 0, list[StoredObject]()
        async with aclosing(self._ctx.storage.list("", self._after)) as objects:
            async for found in objects:
                self._after, seen = found.key, seen + 1
                if found.modified_at <= written_before:
                    page.append(found)
                if len(page) == PAGE:
                    removed += await self._remove_orphans(page)
                    page.clear()
                if seen == SWEEP_OBJECTS:
                    break
            else:
                self._after = ""
        removed += await self._remove_orphans(page)
        if removed or unfinished:
            log.info("orphans.removed", objects=removed, unfinished=unfinished)

    async def _store_is_ours(self) -> bool:
        """Whether the store is this database's: to another one's, everything in it would look like an orphan."""
        id = await sweeps.owner_of_store(self._ctx)
        if id is None:
            return False
        ours = id.encode()
        try:
            owner = await self._read(INSTALLATION, len(ours) + 1)
        except ObjectMissing:
            try:
                await self._ctx.storage.put(INSTALLATION, one_chunk(ours), replace=False)
            except ObjectExists:
                return False  # another process was faster: the next sweep reads what it wrote
            return True
        if owner != ours:
            log.error("orphans.foreign_store", remedy="LUTHIER_STORAGE_URL or LUTHIER_DATABASE_URL is another's")
        return owner == ours

    async def _remove_orphans(self, page: list[StoredObject]) -> int:
        orphans = await self._orphans([found.key for found in page])
        for key in orphans:
            await self._ctx.storage.delete(key)
        return len(orphans)

    async def _orphans(self, stored: list[str]) -> list[str]:
        """Those of the keys whose file, upload, job or model no row knows. What is none of these is left alone."""
        owners = {key: owner for key in stored if (owner := owner_of(key)) is not None}
        unknown = await sweeps.unknown_owners(self._ctx, set(owners.values()))
        for room, id in list(unknown):
            if room == "adapters" and not await self._is_abandoned(id):
                unknown.discard((room, id))
        return [key for key, owner in owners.items() if owner in unknown]

    async def _is_abandoned(self, name: str) -> bool:
        """Whether the nameless artifact is of a job or import that has ended. Without a manifest it never was one."""
        key = artifact_prefix(name) + MANIFEST
        try:
            manifest = Manifest.model_validate_json(await self._read(key, MANIFEST_BYTES))
        except ObjectMissing:
            return True
        except ValidationError:
            log.warning("orphans.unreadable_manifest", key=key)
            return False
        return not await sweeps.is_active(self._ctx, manifest.job_id)

    async def _read(self, key: str, limit_bytes: int) -> bytes:
        return b"".join([chunk async for chunk in self._ctx.storage.open(key, 0, limit_bytes)])
