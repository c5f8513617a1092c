"""A kind of work that no file of service/ or workers/ knows: registered by an extension, run by the real worker."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.installation.context import Context
from service.operations import files
from service.operations.files import NewFile
from service.operations.keys import Caller
from service.storage import ObjectMissing
from service.storage.base import one_chunk, read
from tests.given.made_up_runner import DEADLY
from tests.given.made_up_work import ask_to_count
from tests.given.work import work_of
from tests.given.worker import END_SECONDS, installation
from tests.given.worker_process import kill_worker, worker_process

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forks")]
EXTENSION = {"LUTHIER_EXTENSIONS": "tests.given.made_up_work"}


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path, lease_seconds=3) as ctx:
        yield ctx


async def upload(ctx: Context, caller: Caller, content: bytes) -> str:
    async with files.incoming(ctx) as incoming:
        await incoming.store(one_chunk(content))
        return (await incoming.create(caller, NewFile("a.jsonl", "fine-tune"))).id


async def stored(ctx: Context, key: str) -> bytes:
    """The object, once it is there."""
    async with asyncio.timeout(END_SECONDS):
        while True:
            try:
                return await read(ctx.storage, key)
            except ObjectMissing:
                await asyncio.sleep(0.05)


async def test_made_up_work_survives_the_death_of_its_worker(ctx: Context, caller: Caller) -> None:
    file = await upload(ctx, caller, b"one\ntwo\nthree\n")
    await ask_to_count(ctx, caller.project_id, file)
    async with worker_process(ctx, **EXTENSION) as first:
        await stored(ctx, f"made-up/{file}-begun-1")
        kill_worker(first)
        await first.wait()
    left = await work_of(ctx, file)
    assert left is not None and left.attempt == 1
    async with worker_process(ctx, **EXTENSION):
        await stored(ctx, f"made-up/{file}-begun-2")
        await ctx.storage.put("made-up/go", one_chunk(b"."))
        assert await stored(ctx, f"made-up/{file}") == b"3"
        async with asyncio.timeout(END_SECONDS):
            while await work_of(ctx, file) is not None:
                await asyncio.sleep(0.05)


async def test_made_up_work_that_ends_its_worker_is_given_up(ctx: Context, caller: Caller) -> None:
    file = await upload(ctx, caller, DEADLY)
    await ask_to_count(ctx, caller.project_id, file)
    for attempt in range(1, ctx.settings.crash_limit + 1):
        async with worker_process(ctx, **EXTENSION) as worker:
            async with asyncio.timeout(END_SECONDS):
                assert await worker.wait() == 9
        left = await work_of(ctx, file)
        assert left is not None and left.attempt == attempt
    async with worker_process(ctx, **EXTENSION), asyncio.timeout(END_SECONDS):
        while await work_of(ctx, file) is not None:
            await asyncio.sleep(0.05)
    assert file not in [found.id for found in (await living(ctx, caller))]


async def living(ctx: Context, caller: Caller) -> list[files.File]:
    page = await files.page(ctx, caller, purpose=None, after=None, limit=10, ascending=True)
    return list(page.items)
