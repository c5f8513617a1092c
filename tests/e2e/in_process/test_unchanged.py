"""An adapter that changes nothing is never published: its job fails and says why."""

import pytest

from service.installation.context import Context
from service.operations import jobs, models
from service.operations.keys import Caller
from tests.given.worker import create, ended, worker

pytestmark = pytest.mark.slow


async def test_a_training_that_changes_nothing_fails_and_publishes_nothing(ctx: Context, caller: Caller) -> None:
    async with worker(ctx):
        idle, absolute, good = await ended(
            ctx, caller, *[await create(ctx, caller, 1, rate=rate) for rate in (0.0, 2e-5, 1.0)]
        )
    assert (idle.status, absolute.status, good.status) == ("failed", "failed", "succeeded")
    assert idle.error is not None
    assert idle.error["code"] == "adapter_unchanged"
    assert (await jobs.checkpoint_page(ctx, caller, idle.id, after=None, limit=10)).items == []
    assert idle.fine_tuned_model is None
    assert absolute.error is not None
    assert absolute.error["code"] == "adapter_without_effect"
    assert (await jobs.checkpoint_page(ctx, caller, absolute.id, after=None, limit=10)).items == []
    said = {
        job.id: [event.message for event in (await jobs.event_page(ctx, caller, job.id, after=None, limit=100)).items]
        for job in (absolute, good)
    }
    rate = "The learning rate will be 2e-07, where 0.01 is usual for this base and tuning."
    assert any(message.startswith(rate) for message in said[absolute.id])
    assert not any("learning rate" in message for message in said[good.id])
    owned = [view.id for view in await models.list_all(ctx, caller) if view.id.startswith("ft:")]
    assert len(owned) == 3  # all of the neighbour's
