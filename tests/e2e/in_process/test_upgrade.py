"""A job that trains through an upgrade of the schema: stopped under revision 0002, it ends in the same bits."""

import pytest

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.old_schema import bring_back, bring_up
from tests.given.work import work_of
from tests.given.worker import create, ended, reached, weights, worker

pytestmark = pytest.mark.slow


async def test_a_job_ends_in_the_same_bits_after_an_upgrade(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        (calm,) = await ended(ctx, caller, await create(ctx, caller, 1, epochs=10))
        through = await create(ctx, caller, 1, epochs=10)
        await reached(ctx, caller, through, lambda job: job.step > 5)
    waiting = await create(ctx, caller, 1)
    before = await work_of(ctx, through)
    await bring_back(ctx, "0002")
    await bring_up(ctx)
    after = await work_of(ctx, through)
    assert before is not None and after is not None
    assert (after.kind, after.attempt, after.owner) == ("train", before.attempt, None)
    async with worker(ctx):
        job, other = await ended(ctx, caller, through, waiting)
    assert [found.status for found in (job, other)] == ["succeeded"] * 2
    assert weights(ctx, job) == weights(ctx, calm)
