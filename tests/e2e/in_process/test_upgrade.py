"""A job that trains through an upgrade of the schema: stopped under an early revision, it ends in the same bits."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.old_schema import bring_back, bring_up
from tests.given.work import work_of
from tests.given.worker import create, ended, installation, reached, weights, worker

pytestmark = pytest.mark.slow


@pytest.fixture
async def ctx(tmp_path: Path, database_url: str) -> AsyncIterator[Context]:
    """The same installation on each database."""
    async with installation(tmp_path, database_url=database_url) as ctx:
        yield ctx


async def test_a_job_ends_in_the_same_bits_after_two_upgrades(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        (calm,) = await ended(ctx, caller, await create(ctx, caller, 1, epochs=20))
    through = await create(ctx, caller, 1, epochs=20)
    for revision, least in (("0002", 5), ("0001", 20)):
        async with worker(ctx):
            await reached(ctx, caller, through, lambda job, least=least: job.step > least)  # type: ignore[misc]
        waiting = await create(ctx, caller, 1)
        before = await work_of(ctx, through)
        await bring_back(ctx, revision)
        await bring_up(ctx)
        after = await work_of(ctx, through)
        assert before is not None and after is not None
        assert (after.kind, after.attempt, after.owner) == ("train", before.attempt, None)
    async with worker(ctx):
        job, other = await ended(ctx, caller, through, waiting)
    assert [found.status for found in (job, other)] == ["succeeded"] * 2
    assert weights(ctx, job) == weights(ctx, calm)
