"""What a job stores beside its training: the trainer never waits for a storage that is away, and nothing is half."""

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
from workers.jobs import background_uploads as keeping
from workers.jobs.background_uploads import Keeper
from workers.jobs.staging import store_file
from workers.trainer.protocol import Snapshotted


class Store(LocalStore):
    """A local one that can be away, or slow."""

    away = False
    gate: asyncio.Event | None = None

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, replace: bool = True) -> int:
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise StorageError("away")
        return await super().put(key, chunks, replace=replace)


@pytest.fixture
def store(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store_file.retry, "stop", stop_after_delay(0))  # type: ignore[attr-defined]
    monkeypatch.setattr(keeping, "PAUSE_SECONDS", 0.01)
    return Store(settings.data_dir / "objects")


@pytest.fixture
async def claim(ctx: Context, caller: Caller) -> HeldJob:
    return await claimed(ctx, caller)


@pytest.fixture
async def keeper(ctx: Context, claim: HeldJob, store: Store) -> AsyncIterator[Keeper]:
    keeper = Keeper(HeldJob(dataclasses.replace(ctx, storage=store), claim.claim))
    yield keeper
    await keeper.close()


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
    ctx: Context, claim: HeldJob, keeper: Keeper, report: Callable[[int], Snapshotted]
) -> None:
    keeper.snapshot(first := report(1))
    keeper.snapshot(report(2))
    await keeper.settle(snapshots=True)
    assert await stored_steps(ctx, claim) == [2, 1]
    assert not Path(first.folder).exists()


async def test_a_snapshot_that_cannot_be_stored_is_left_out_and_the_next_one_tries_again(
    ctx: Context, caller: Caller, claim: HeldJob, keeper: Keeper, store: Store, report: Callable[[int], Snapshotted]
) -> None:
    store.away = True
    for step in (1, 2, 3):
        keeper.snapshot(written := report(step))

        async def gone(folder: Path = Path(written.folder)) -> bool:
            return not folder.exists()

        await passed(gone)
        keeper.check()
    store.away = False
    keeper.snapshot(report(4))
    await keeper.settle(snapshots=True)
    assert await stored_steps(ctx, claim) == [4]
    assert len(await warnings(ctx, caller, claim)) == 1


async def test_of_snapshots_that_wait_the_newest_is_stored(
    ctx: Context, claim: HeldJob, keeper: Keeper, store: Store, report: Callable[[int], Snapshotted]
) -> None:
    store.gate = asyncio.Event()
    keeper.snapshot(report(1))
    await asyncio.sleep(0)  # the first one is under way
    for step in (2, 3, 4):
        keeper.snapshot(report(step))
    store.gate.set()
    await keeper.settle(snapshots=True)
    assert await stored_steps(ctx, claim) == [4, 1]


async def test_a_job_that_rests_needs_its_snapshot(
    keeper: Keeper, store: Store, report: Callable[[int], Snapshotted]
) -> None:
    store.away = True
    keeper.snapshot(report(1))
    with pytest.raises(StorageError):
        await keeper.settle(snapshots=True)


async def test_a_job_that_is_trained_does_not(
    ctx: Context, claim: HeldJob, keeper: Keeper, store: Store, report: Callable[[int], Snapshotted]
) -> None:
    store.away = True
    keeper.snapshot(report(1))
    keeper.snapshot(report(2))
    await keeper.settle(snapshots=False)
    assert await stored_steps(ctx, claim) == []


async def test_a_checkpoint_is_tried_until_it_is_stored_and_what_follows_waits(
    ctx: Context, claim: HeldJob, keeper: Keeper, report: Callable[[int], Snapshotted]
) -> None:
    tries = 0

    async def publish() -> None:
        nonlocal tries
        tries += 1
        assert await stored_steps(ctx, claim) == []
        if tries < 4:
            raise StorageError("away")

    async def published() -> bool:
        return tries == 4

    keeper.publish(publish)
    keeper.snapshot(report(1))
    await passed(published)
    await keeper.settle(snapshots=True)
    assert await stored_steps(ctx, claim) == [1]


async def test_a_job_that_ends_hears_that_its_checkpoint_is_not_stored(keeper: Keeper) -> None:
    async def publish() -> None:
        raise StorageError("away")

    keeper.publish(publish)
    with pytest.raises(StorageError):
        await keeper.settle(snapshots=False)


async def test_a_lost_lease_ends_the_work(
    ctx: Context, caller: Caller, claim: HeldJob, keeper: Keeper, report: Callable[[int], Snapshotted]
) -> None:
    await jobs.cancel(ctx, caller, claim.job.id)
    keeper.snapshot(report(1))

    async def ended() -> bool:
        try:
            keeper.check()
        except LeaseLost:
            return True
        return False

    await passed(ended)
    assert await lookups.metrics_of(ctx, claim.job.id) == []
    assert await stored_steps(ctx, claim) == []
