"""An adapter that changes nothing is never published: its job fails and says why."""

import pytest

from service.installation.context import Context
from service.operations import jobs, models
from service.operations.keys import Caller
from tests.given.worker import create, ended, worker

pytestmark = pytest.mark.slow


async def test_a_training_that_changes_nothing_fails_and_publishes_nothing(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        idle, good = await ended(
            ctx, caller, await create(ctx, caller, 1, rate=0.0), await create(ctx, caller, 1, rate=1.0)
        )
    assert (idle.status, good.status) == ("failed", "succeeded")
    assert idle.error is not None
    assert idle.error["code"] == "adapter_unchanged"
    assert (await jobs.checkpoint_page(ctx, caller, idle.id, after=None, limit=10)).items == []
    assert idle.fine_tuned_model is None
    owned = [view.id for view in await models.list_all(ctx, caller) if view.id.startswith("ft:")]
    assert len(owned) == 3  # all of the neighbour's
