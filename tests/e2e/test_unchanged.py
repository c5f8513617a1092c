"""An adapter that changes nothing is never published: its job fails and says why."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.operations import jobs, models
from service.operations.context import Context
from service.operations.keys import Caller
from tests.e2e.workshop import create, ended, first_caller, installation, worker

pytestmark = pytest.mark.slow


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path) as ctx:
        yield ctx


@pytest.fixture
async def caller(ctx: Context) -> Caller:
    return await first_caller(ctx)


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
