"""A file whose check ends the worker's process: the job fails after some attempts, and the work beside it does not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.installation.context import Context
from service.operations import jobs
from service.operations.keys import Caller
from tests.given.worker import END_SECONDS, create, ended, installation, upload, worker
from tests.given.worker_process import stop_worker, worker_process

pytestmark = pytest.mark.slow


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path, lease_seconds=3) as ctx:
        yield ctx


async def test_a_file_that_ends_its_worker_fails_its_job_alone(ctx: Context, caller: Caller) -> None:
    file = await upload(ctx, caller, num_rows=25)  # equal content would be tokenised once for all three
    deadly = await create(ctx, caller, 1, training_file=file)

    async def checked(id: str) -> bool:
        return (await jobs.retrieve(ctx, caller, id)).job.status != "validating_files"

    beside = [await create(ctx, caller, seed) for seed in (2, 3)]
    ends = 0
    async with asyncio.timeout(END_SECONDS):
        while not await checked(deadly):
            async with worker_process(ctx, "tests.faults.worker", LUTHIER_FAULT_DEADLY_FILE=file) as process:
                while process.returncode is None:
                    if all([await checked(id) for id in (deadly, *beside)]):
                        await stop_worker(process)  # a kill would count as one more crash of what it trains now
                        break
                    await asyncio.sleep(0.05)
                else:
                    ends += 1
    async with worker(ctx):
        failed, *others = await ended(ctx, caller, deadly, *beside)
    assert ends == ctx.settings.crash_limit
    assert failed.error is not None
    assert failed.error["code"] == "worker_crashed"
    assert file in failed.error["message"]
    assert [job.status for job in others] == ["succeeded", "succeeded"]
