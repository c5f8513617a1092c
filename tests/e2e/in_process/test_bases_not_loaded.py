"""A worker that cannot load a base says so, claims nothing of it, and takes it up once it loads; no job pays for it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.installation.context import Context
from service.operations import jobs
from service.operations.counts import count_jobs
from service.operations.keys import Caller
from tests.given.work import work_of
from tests.given.worker import END_SECONDS, create, ended, installation, worker

pytestmark = pytest.mark.slow


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path, ["broken"], lease_seconds=2) as ctx:
        yield ctx


async def reason(ctx: Context, base: str, wanted: bool) -> str:
    """Why the one worker has not the base ready, once it has (or, unless `wanted`, has not) such a reason."""
    async with asyncio.timeout(END_SECONDS):
        while True:
            for found in (await count_jobs(ctx)).workers:
                if (found.bases[base] not in ("", "loading")) is wanted:
                    return found.bases[base]
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("bases", ["", "broken"])
async def test_jobs_wait_until_their_base_loads(ctx: Context, caller: Caller, missing: str, bases: str) -> None:
    folder = Path(ctx.catalogue.bases["broken"].source)
    shutil.move(folder / missing, folder / "elsewhere")
    holder = type(ctx)(**{**vars(ctx), "settings": ctx.settings.model_copy(update={"bases": bases})})
    waiting = await create(ctx, caller, 1, model="broken")
    async with worker(holder):
        assert "cannot be loaded" in (said := await reason(ctx, "broken", True)) or "ended before" in said
        if not bases:
            (beside,) = await ended(ctx, caller, await create(ctx, caller, 2))
            assert beside.status == "succeeded"  # the other base is not concerned
        job = (await jobs.retrieve(ctx, caller, waiting)).job
        work = await work_of(ctx, waiting)
        assert work is not None and work.crashes == 0
        assert job.status in ("validating_files", "queued", "running")
        shutil.move(folder / "elsewhere", folder / missing)
        (job,) = await ended(ctx, caller, waiting)
        assert job.status == "succeeded", job.error
        assert await reason(ctx, "broken", False) == ""
        (found,) = (await count_jobs(ctx)).workers
        assert 0 < found.memory["broken"].free_bytes < found.memory["broken"].total_bytes
