"""A worker that has nothing to do asks the database one question at a look, and takes no lock for it."""

import asyncio
from pathlib import Path

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
