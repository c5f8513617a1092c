"""What has nothing to do asks the database little and takes no lock for it: a worker, chores, deliveries. Counted."""

import asyncio
from pathlib import Path

import pytest

from service.operations import chores, webhook_deliveries
from service.settings.settings import Settings
from tests.given.installation import installed
from tests.given.statements import statements
from workers.supervisor.supervisor import Supervisor

LOOKS = 10


async def test_an_idle_worker_claims_nothing(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, engine_urls="", sweep_seconds=0.01, poll_seconds=0.005, lease_seconds=60)
    async with installed(settings) as ctx:
        supervisor = Supervisor(ctx, {}, tmp_path / "scratch")
        with statements(ctx) as sent:
            running = asyncio.create_task(supervisor.run())
            async with asyncio.timeout(60):
                while sum("DISTINCT work.kind" in one for one in sent) < LOOKS:
                    await asyncio.sleep(0.01)
            locked = sent.count("BEGIN IMMEDIATE")
            supervisor.stop()
            await running
    assert locked <= 2  # its beat, and the release of what an earlier life of it held


async def test_commits_that_ring_nobody_wake_no_idle_worker(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, engine_urls="", poll_seconds=0.001, lease_seconds=60)
    async with installed(settings) as ctx:
        supervisor = Supervisor(ctx, {}, tmp_path / "scratch")
        with statements(ctx) as sent:
            running = asyncio.create_task(supervisor.run())
            async with asyncio.timeout(60):
                while not any("DISTINCT work.kind" in one for one in sent):
                    await asyncio.sleep(0.01)
                for _ in range(LOOKS):
                    await ctx.database.check_writes()
                    await asyncio.sleep(0.01)  # ten times as long as a check would take
                looks = sum("DISTINCT work.kind" in one for one in sent)
            supervisor.stop()
            await running
    assert looks <= LOOKS // 3  # the first, and those of the sweep


async def test_chores_ask_once_whether_anything_is_due(tmp_path: Path) -> None:
    async with installed(Settings(data_dir=tmp_path, engine_urls="")) as ctx:
        with statements(ctx) as sent:
            await chores.sweep(ctx)
    assert [one for one in sent if one.startswith("BEGIN")] == ["BEGIN DEFERRED"]
    assert len(sent) <= 13


async def test_deliveries_ask_again_only_after_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_deliveries, "POLL_SECONDS", 0.001)
    async with installed(Settings(data_dir=tmp_path, engine_urls="")) as ctx:
        with statements(ctx) as sent:
            running = asyncio.create_task(webhook_deliveries.run(ctx))
            try:
                async with asyncio.timeout(60):
                    for expected in (None, None, 1, 1):  # the first marks of a new file are not its last ones
                        before = _asked(sent)
                        await ctx.database.check_writes()
                        while _asked(sent) == before:
                            await asyncio.sleep(0.001)
                        await asyncio.sleep(0.05)  # fifty times as long as a check takes
                        assert expected is None or _asked(sent) - before == expected
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


def _asked(sent: list[str]) -> int:
    return sum("min(coalesce(work.lease_expires_at" in one for one in sent)
