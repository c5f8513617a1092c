"""With Redis one of several API processes does the chores of an interval; without it each does them."""

from pathlib import Path

import pytest

from service.installation.context import Context
from service.installation.create import create_context
from service.operations import chores
from service.settings.settings import Settings
from tests.servers.valkey import Valkey


@pytest.mark.slow
async def test_one_process_does_the_chores_of_an_interval(tmp_path: Path, own_valkey: Valkey) -> None:
    settings = Settings(data_dir=tmp_path, redis_url=own_valkey.url, sweep_seconds=3600)
    one, other = create_context(settings), create_context(settings)
    assert [await chores.due(ctx) for ctx in (one, other, one, other)] == [True, False, False, False]
    own_valkey.flush()
    assert [await chores.due(ctx) for ctx in (other, one)] == [True, False]
    own_valkey.kill()
    assert [await chores.due(ctx) for ctx in (one, other)] == [True, True]
    for ctx in (one, other):
        await ctx.close()


async def test_a_process_without_redis_always_does_them(ctx: Context) -> None:
    assert [await chores.due(ctx), await chores.due(ctx)] == [True, True]
