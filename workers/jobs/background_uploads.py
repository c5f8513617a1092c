"""Background uploads of a running job, one at a time and in order, while its training continues.

The trainer is shared with other jobs, so it never waits for storage. While storage is unavailable, a snapshot that
cannot be stored is dropped, since the next one replaces it; a checkpoint is retried until it is stored. Only a job that
ends or is paused waits for its uploads.
"""

import asyncio
import shutil
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.domain import event as wording
from service.domain.job import Snapshot
from service.domain.storage_keys import snapshot_prefix
from service.operations.progress import HeldJob
from service.storage import StorageError
from workers.jobs.staging import store_folder
from workers.trainer.protocol import Snapshotted

log = structlog.get_logger()
PAUSE_SECONDS = 5.0  # before the next try, after the retries of each try


@dataclass(frozen=True)
class BackgroundUpload:
    """One upload; `snapshot` is the folder of a snapshot, None for what must not be dropped."""

    work: Callable[[], Awaitable[None]]
    snapshot: Path | None = None


class BackgroundUploads:
    """The uploads of one claim."""

    def __init__(self, held: HeldJob) -> None:
        self._held = held
        self._waiting: deque[BackgroundUpload] = deque()  # the first one is in progress
        self._working: asyncio.Task[None] | None = None
        self._settling = False  # somebody waits in `settle`
        self._snapshots_needed = True

    def snapshot(self, report: Snapshotted) -> None:
        """Queues a snapshot, in the place of an older one that has not begun."""
        self._forget_snapshots()
        folder = Path(report.folder)
        self._add(BackgroundUpload(lambda: self._store(report.step, folder), folder))

    def publish(self, work: Callable[[], Awaitable[None]]) -> None:
        """Queues `work`, after everything that was queued before."""
        self._add(BackgroundUpload(work))

    def check(self) -> None:
        """Raises the error that ended the uploads, such as a lost lease."""
        if self._working is not None and self._working.done():
            self._working.result()

    async def settle(self, *, snapshots: bool) -> None:
        """Waits until everything is stored, snapshots only if these are still needed. Raises the error of an upload."""
        self._settling, self._snapshots_needed = True, snapshots
        if not snapshots:
            self._forget_snapshots()
        if self._working is not None:
            await self._working
        self._settling = False

    async def close(self) -> None:
        """Cancels the upload in progress. Its objects may remain in storage; no row names them."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    def _add(self, upload: BackgroundUpload) -> None:
        self.check()
        self._waiting.append(upload)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())

    def _forget_snapshots(self) -> None:
        """Drops those that have not begun."""
        for upload in list(self._waiting)[1:]:
            if upload.snapshot is not None:
                self._waiting.remove(upload)

    async def _work(self) -> None:
        while self._waiting:
            upload = self._waiting[0]
            is_snapshot = upload.snapshot is not None
            try:
                await upload.work()
            except StorageError as error:
                if self._settling and (self._snapshots_needed or not is_snapshot):
                    raise
                await self._warn(error)
                if not is_snapshot:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
            self._waiting.popleft()
            if upload.snapshot is not None:
                await asyncio.to_thread(shutil.rmtree, upload.snapshot, ignore_errors=True)

    async def _warn(self, error: StorageError) -> None:
        log.warning("storage.unavailable", job_id=self._held.job.id, reason=type(error).__name__)
        await self._held.warn(wording.storage_unavailable())

    async def _store(self, step: int, folder: Path) -> None:
        job_id, storage = self._held.job.id, self._held.ctx.storage
        prefix = snapshot_prefix(job_id, self._held.attempt, step, time.time_ns())
        files = await store_folder(storage, folder, prefix)
        for old in await self._held.record_snapshot(Snapshot(job_id, step, prefix, files)):
            for name in old.files:
                await storage.delete(old.prefix + name)
