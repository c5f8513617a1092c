"""What a running job stores while its training goes on: in order, one thing at a time, beside the relay of its steps.

A storage that is away must not stop the trainer, where other jobs have slots too: a snapshot that cannot be stored is
left out, and the next one tries again; a checkpoint is tried again and again. Only a job that ends or rests waits.
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
PAUSE_SECONDS = 5.0  # before the next try, beside those of each


@dataclass(frozen=True)
class Task:
    """One thing to store; `snapshot` is the folder of a snapshot, None for what must not be left out."""

    work: Callable[[], Awaitable[None]]
    snapshot: Path | None = None


class Keeper:
    """What one claim stores. Knows neither trainer nor relay."""

    def __init__(self, held: HeldJob) -> None:
        self._held = held
        self._waiting: deque[Task] = deque()  # the first one is under way
        self._working: asyncio.Task[None] | None = None
        self._settling = False  # somebody waits
        self._snapshots_needed = True

    def snapshot(self, report: Snapshotted) -> None:
        """Stores the snapshot some time; an older one that has not begun yet is not needed any more."""
        self._forget_snapshots()
        folder = Path(report.folder)
        self._add(Task(lambda: self._store(report.step, folder), folder))

    def publish(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does `work` some time, after everything that was given before."""
        self._add(Task(work))

    def check(self) -> None:
        """Raises what ended the work, such as a lost lease."""
        if self._working is not None and self._working.done():
            self._working.result()

    async def settle(self, *, snapshots: bool) -> None:
        """Waits until all is stored; `snapshots` says whether those are still needed. Raises what went wrong."""
        self._settling, self._snapshots_needed = True, snapshots
        if not snapshots:
            self._forget_snapshots()
        if self._working is not None:
            await self._working
        self._settling = False

    async def close(self) -> None:
        """Ends what is under way. Storage may keep some of it, under names that no row has."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    def _add(self, task: Task) -> None:
        self.check()
        self._waiting.append(task)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())

    def _forget_snapshots(self) -> None:
        """Those that have not begun."""
        for task in list(self._waiting)[1:]:
            if task.snapshot is not None:
                self._waiting.remove(task)

    async def _work(self) -> None:
        while self._waiting:
            task = self._waiting[0]
            is_snapshot = task.snapshot is not None
            try:
                await task.work()
            except StorageError as error:
                if self._settling and (self._snapshots_needed or not is_snapshot):
                    raise
                await self._warn(error)
                if not is_snapshot:
                    await asyncio.sleep(PAUSE_SECONDS)
                    continue
            self._waiting.popleft()
            if task.snapshot is not None:
                await asyncio.to_thread(shutil.rmtree, task.snapshot, ignore_errors=True)

    async def _warn(self, error: StorageError) -> None:
        log.warning("storage.away", job_id=self._held.job.id, reason=type(error).__name__)
        await self._held.warn(wording.storage_away())

    async def _store(self, step: int, folder: Path) -> None:
        job_id, storage = self._held.job.id, self._held.ctx.storage
        prefix = snapshot_prefix(job_id, self._held.attempt, step, time.time_ns())
        files = await store_folder(storage, folder, prefix)
        for old in await self._held.record_snapshot(Snapshot(job_id, step, prefix, files)):
            for name in old.files:
                await storage.delete(old.prefix + name)
