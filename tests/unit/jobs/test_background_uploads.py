"""What a job stores during its training: unavailable storage never stops the trainer, and nothing is stored in half."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tenacity import stop_after_delay

from service.domain.errors import LeaseLost
from service.installation.context import Context
from service.operations import jobs, lookups
from service.operations.keys import Caller
from service.operations.progress import HeldJob
from service.settings.settings import Settings
from service.storage import StorageError
from service.storage.local import LocalStore
from tests.given.stored_jobs import claimed
from workers.jobs import background_uploads
from workers.jobs.background_uploads import BackgroundUploads
from workers.jobs.staging import store_file
from workers.trainer.protocol import Snapshotted


class Store(LocalStore):
    """A local one that can be unavailable, or slow."""

    unavailable = False
    gate: asyncio.Event | None = None

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, replace: bool = True) -> int:
        if self.gate is not None:
            await self.gate.wait()
        if self.unavailable:
            raise StorageError("unavailable")
        return await super().put(key, chunks, replace=replace)


@pytest.fixture
def store(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store_file.retry, "stop", stop_after_delay(0))  # type: ignore[attr-defined]
    monkeypatch.setattr(background_uploads, "PAUSE_SECONDS", 0.01)
    return Store(settings.data_dir / "objects")


@pytest.fixture
async def claim(ctx: Context, caller: Caller) -> HeldJob:
    return await claimed(ctx, caller)


@pytest.fixture
async def uploads(ctx: Context, claim: HeldJob, store: Store) -> AsyncIterator[BackgroundUploads]:
    uploads = BackgroundUploads(HeldJob(dataclasses.replace(ctx, storage=store), claim.claim))
    yield uploads
    await uploads.close()


@pytest.fixture
def report(claim: HeldJob, tmp_path: Path) -> Callable[[int], Snapshotted]:
    """A written snapshot of a step."""

    def write(step: int) -> Snapshotted:
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        (folder / "state.json").write_text(str(step), encoding="utf-8")
        return Snapshotted(job_id=claim.job.id, step=step, folder=str(folder))

    return write


async def stored_steps(ctx: Context, claim: HeldJob) -> list[int]:
    return [snapshot.step for snapshot in await lookups.find_snapshots(ctx, claim.job.id)]


async def warnings(ctx: Context, caller: Caller, claim: HeldJob) -> list[str]:
    page = await jobs.event_page(ctx, caller, claim.job.id, after=None, limit=50)
    return [event.message for event in page.items if event.level == "warn"]


async def passed(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_snapshots_are_stored_and_their_folders_go(
    ctx: Context, claim: HeldJob, uploads: BackgroundUploads, report: Callable[[int], Snapshotted]
) -> None:
    uploads.snapshot(first := report(1))
    uploads.snapshot(report(2))
    await uploads.settle(snapshots=True)
    assert await stored_steps(ctx, claim) == [2, 1]
    assert not Path(first.folder).exists()


async def test_a_snapshot_that_cannot_be_stored_is_left_out_and_the_next_one_tries_again(
    ctx: Context,
    caller: Caller,
    claim: HeldJob,
    uploads: BackgroundUploads,
    store: Store,
    report: Callable[[int], Snapshotted],
) -> None:
    store.unavailable = True
    for step in (1, 2, 3):
        uploads.snapshot(written := report(step))

        async def gone(folder: Path = Path(written.folder)) -> bool:
            return not folder.exists()

        await passed(gone)
        uploads.check()
    store.unavailable = False
    uploads.snapshot(report(4))
    await uploads.settle(snapshots=True)
    assert await stored_steps(ctx, claim) == [4]
    assert len(await warnings(ctx, caller, claim)) == 1


async def test_of_snapshots_that_wait_the_newest_is_stored(
    ctx: Context, claim: HeldJob, uploads: BackgroundUploads, store: Store, report: Callable[[int], Snapshotted]
) -> None:
    store.gate = asyncio.Event()
    uploads.snapshot(report(1))
    await asyncio.sleep(0)  # the first one is under way
    for step in (2, 3, 4):
        uploads.snapshot(report(step))
    store.gate.set()
    await uploads.settle(snapshots=True)
    assert await stored_steps(ctx, claim) == [4, 1]


async def test_a_job_that_rests_needs_its_snapshot(
    uploads: BackgroundUploads, store: Store, report: Callable[[int], Snapshotted]
) -> None:
    store.unavailable = True
    uploads.snapshot(report(1))
    with pytest.raises(StorageError):
        await uploads.settle(snapshots=True)


async def test_a_job_that_is_trained_does_not(
    ctx: Context, claim: HeldJob, uploads: BackgroundUploads, store: Store, report: Callable[[int], Snapshotted]
) -> None:
    store.unavailable = True
    uploads.snapshot(report(1))
    uploads.snapshot(report(2))
    await uploads.settle(snapshots=False)
    assert await stored_steps(ctx, claim) == []


async def test_a_checkpoint_is_tried_until_it_is_stored_and_what_follows_waits(
    ctx: Context, claim: HeldJob, uploads: BackgroundUploads, report: Callable[[int], Snapshotted]
) -> None:
    tries = 0

    async def publish() -> None:
        nonlocal tries
        tries += 1
        assert await stored_steps(ctx, claim) == []
        if tries < 4:
            raise StorageError("unavailable")

    async def published() -> bool:
        return tries == 4

    uploads.publish(publish)
    uploads.snapshot(report(1))
    await passed(published)
    await uploads.settle(snapshots=True)
    assert await stored_steps(ctx, claim) == [1]


async def test_a_job_that_ends_hears_that_its_checkpoint_is_not_stored(uploads: BackgroundUploads) -> None:
    async def publish() -> None:
        raise StorageError("unavailable")

    uploads.publish(publish)
    with pytest.raises(StorageError):
        await uploads.settle(snapshots=False)


async def test_a_lost_lease_ends_the_work(
    ctx: Context, caller: Caller, claim: HeldJob, uploads: BackgroundUploads, report: Callable[[int], Snapshotted]
) -> None:
    await jobs.cancel(ctx, caller, claim.job.id)
    uploads.snapshot(report(1))

    async def ended() -> bool:
        try:
            uploads.check()
        except LeaseLost:
            return True
        return False

    await passed(ended)
    assert await lookups.metrics_of(ctx, claim.job.id) == []
    assert await stored_steps(ctx, claim) == []
