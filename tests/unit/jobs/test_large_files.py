"""Jobs and checks whose files several processes read: the same result, and what a crash of a process costs."""

import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.installation.context import Context
from service.operations import checks, jobs
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.processes.child import ChildProcess
from service.processes.forks import ADDRESS, start_fork
from service.recipes.base import Base
from service.settings.settings import Settings
from service.storage.base import read
from tests.given.checks import claimed, create, installation_for_checks, result, upload
from tests.given.forked_process import fork_address
from tests.given.journey import rows
from tests.given.tiny_models import make_tiny_base
from tests.given.work import claim_validation, column, set_work
from workers.jobs import check_processes
from workers.jobs.check import CheckRun
from workers.jobs.check_processes import CheckProcesses
from workers.jobs.loading import Tokenizers
from workers.jobs.validate import JobValidation

pytestmark = pytest.mark.slow

ROWS = 30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
async def ctx(settings: Settings, tmp_path: Path, base: Base) -> AsyncIterator[Context]:
    async with installation_for_checks(settings, tmp_path, base, settings.database_url) as ctx:
        yield ctx


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large enough for two processes, which are forked from the tests' server."""
    monkeypatch.setattr(check_processes, "LEAST_BYTES", 1)
    monkeypatch.setattr(check_processes, "LEAST_BYTES_UNFORKED", 1)
    if address := fork_address():
        monkeypatch.setenv(ADDRESS, address)


@pytest.fixture
def started(large: None, monkeypatch: pytest.MonkeyPatch) -> list[ChildProcess]:
    processes: list[ChildProcess] = []

    async def start(*arguments: Any, **options: Any) -> ChildProcess:
        processes.append(await start_fork(*arguments, **options))
        return processes[-1]

    monkeypatch.setattr(check_processes, "start_fork", start)
    return processes


@pytest.fixture
def deadly(large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process is killed as soon as it has started."""

    async def start(*arguments: Any, **options: Any) -> ChildProcess:
        process = await start_fork(*arguments, **options)
        process.send_signal(signal.SIGKILL)
        return process

    monkeypatch.setattr(check_processes, "start_fork", start)


async def create_job(ctx: Context, caller: Caller, file: str) -> str:
    return (await jobs.create(ctx, caller, NewJob(model="tiny", training_file=file, seed=1))).job.id


async def validate(ctx: Context, processes: int) -> None:
    held = await claim_validation(ctx, "worker")
    assert held is not None
    base, scratch = ctx.catalogue.bases["tiny"], ctx.settings.scratch_dir
    await JobValidation(held, base, Tokenizers(), scratch, CheckProcesses(processes)).run()


async def check(ctx: Context, processes: int) -> None:
    held = await claimed(ctx)
    assert held is not None
    base, scratch = ctx.catalogue.bases["tiny"], ctx.settings.scratch_dir
    await CheckRun(held, base, Tokenizers(), scratch, CheckProcesses(processes)).run()


async def take_data(ctx: Context) -> dict[str, bytes]:
    """What is stored of files that were read, which is then lost; without what is random in keys."""
    found = {stored.key: await read(ctx.storage, stored.key) async for stored in ctx.storage.list("data/")}
    for key in found:
        await ctx.storage.delete(key)
    return {re.sub(r"-\w{8}", "", key): content for key, content in found.items()}


async def test_a_check_stores_and_says_the_same_with_processes_and_without(
    ctx: Context, caller: Caller, started: list[ChildProcess]
) -> None:
    file, found, stored = await upload(ctx, caller, rows(ROWS)), [], []
    for processes in (2, 1):
        id = await create(ctx, caller, file)
        await check(ctx, processes)
        found.append(result(await checks.retrieve(ctx, caller, id)))
        stored.append(await take_data(ctx))
        assert len(started) == 2
    assert found[0] == found[1]
    assert len(stored[0]) > 4
    assert stored[0] == stored[1]


async def test_a_file_that_ends_its_processes_again_and_again_fails_its_job(
    ctx: Context, caller: Caller, deadly: None
) -> None:
    file = await upload(ctx, caller, rows(ROWS))
    id = await create_job(ctx, caller, file)
    await validate(ctx, 2)
    assert (await jobs.retrieve(ctx, caller, id)).job.status == "validating_files"
    assert await column(ctx, id, "crashes") == 1
    assert await claim_validation(ctx, "worker") is None  # it waits a little
    await set_work(ctx, id, not_before=0.0)
    await validate(ctx, 2)
    job = (await jobs.retrieve(ctx, caller, id)).job
    assert job.status == "failed" and job.error is not None
    assert job.error["code"] == "worker_crashed"
    assert f"ended {ctx.settings.crash_limit} times" in job.error["message"] and file in job.error["message"]
    assert await take_data(ctx) == {}


async def test_a_file_that_ends_its_processes_again_and_again_fails_its_check(
    ctx: Context, caller: Caller, deadly: None
) -> None:
    file = await upload(ctx, caller, rows(ROWS))
    id = await create(ctx, caller, file)
    await check(ctx, 2)
    assert (await checks.retrieve(ctx, caller, id)).status == "running"
    await set_work(ctx, id, not_before=0.0)
    await check(ctx, 2)
    failed = await checks.retrieve(ctx, caller, id)
    assert failed.status == "failed" and failed.error is not None
    assert failed.error["code"] == "worker_crashed" and file in failed.error["message"]


async def test_an_invalid_row_is_found_by_processes(ctx: Context, caller: Caller, started: list[ChildProcess]) -> None:
    file = await upload(ctx, caller, rows(ROWS) + b"\n" + json.dumps({"messages": []}).encode() + b"\n")
    id = await create_job(ctx, caller, file)
    await validate(ctx, 2)
    job = (await jobs.retrieve(ctx, caller, id)).job
    assert job.status == "failed" and job.error is not None
    assert f"Example {ROWS + 1}: has no messages" in job.error["message"]
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)


async def test_files_are_read_here_where_no_process_can_be_started(
    ctx: Context, caller: Caller, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: Any, **options: Any) -> ChildProcess:
        raise OSError("no more processes")

    monkeypatch.setattr(check_processes, "start_fork", fail)
    id = await create_job(ctx, caller, await upload(ctx, caller, rows(ROWS)))
    await validate(ctx, 2)
    assert (await jobs.retrieve(ctx, caller, id)).job.status == "queued"
