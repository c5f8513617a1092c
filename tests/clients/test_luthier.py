"""What `Luthier` adds to the operations: tune, wait, download, uploads in parts, the official client, configuration."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from luthier import AsyncLuthier, ConfigurationError, Luthier, NotFoundError, WaitTimeoutError
from luthier.configuration import Service, config_path, find_service, store_service
from luthier.large_files import parts_of

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.files_by_http import ROWS
from tests.given.scripted_api import Script, cuts, fails, scripted_api, sends, streams
from tests.given.scripted_engine import ScriptedEngine
from tests.given.stored_jobs import add_job, claimed, tell

pytestmark = pytest.mark.slow

DONE = b"data: [DONE]\n\n"


def event(number: int) -> bytes:
    body = {"id": f"e{number}", "created_at": 1, "level": "info", "message": str(number), "type": "message", "data": {}}
    return f"id: e{number}\nevent: fine_tuning.job.event\ndata: {json.dumps(body)}\n\n".encode()


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


async def test_tune_uploads_creates_and_follows(ctx: Context, sync_sdk: Luthier, rows: Path) -> None:
    said: list[str] = []
    first = await asyncio.to_thread(sync_sdk.tune, rows, "luthier-tiny", wait=False, validation=rows, suffix="a")
    assert (first.status, first.user_provided_suffix) == ("validating_files", "a")
    assert first.training_file != first.validation_file
    tuning = asyncio.create_task(
        asyncio.to_thread(
            sync_sdk.tune, rows, "luthier-tiny", on_event=lambda event: said.append(event.message), seed=3
        )
    )
    async with asyncio.timeout(20):
        while not (jobs := [job for job in await asyncio.to_thread(list_jobs, sync_sdk) if job.seed == 3]):
            await asyncio.sleep(0.01)
        await tell(ctx, jobs[0].id, 1, 2)
        await asyncio.to_thread(sync_sdk.fine_tuning.jobs.cancel, jobs[0].id)
        job = await tuning
    assert (job.id, job.status) == (jobs[0].id, "cancelled")
    assert said[-3:-1] == ["1", "2"] and "cancelled" in said[-1]


def list_jobs(sdk: Luthier) -> list[Any]:
    return list(sdk.fine_tuning.jobs.list())


async def test_tune_and_wait_in_asyncio(ctx: Context, caller: Caller, sdk: AsyncLuthier, rows: Path) -> None:
    job = await sdk.tune(rows, "luthier-tiny", wait=False, tuning={"type": "lora", "lora": {"r": 2}})
    waiting = asyncio.create_task(sdk.wait(job.id))
    await asyncio.sleep(0.05)
    await sdk.fine_tuning.jobs.cancel(job.id)
    async with asyncio.timeout(20):
        assert (await waiting).status == "cancelled"


async def test_wait_gives_up_in_time_and_the_job_continues(ctx: Context, caller: Caller, sdk: AsyncLuthier) -> None:
    job = await add_job(ctx, caller)
    with pytest.raises(WaitTimeoutError, match=f"{job.id} has not ended within 0.2 seconds"):
        await sdk.wait(job.id, timeout_seconds=0.2)
    assert (await sdk.fine_tuning.jobs.retrieve(job.id)).status == "validating_files"
    with pytest.raises(NotFoundError):
        await sdk.wait("ftjob-nothing")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_events_are_followed_through_lost_connections(
    asynchronous: bool, ctx: Context, caller: Caller, sdk: AsyncLuthier
) -> None:
    stored = await add_job(ctx, caller)
    await sdk.fine_tuning.jobs.cancel(stored.id)
    job = (await sdk.fine_tuning.jobs.retrieve(stored.id)).to_dict()
    broken = b'data: {"error": {"message": "The database is down.", "type": "server_error"}}\n\n'
    scripts: list[Script] = [
        streams(event(1), event(2), cut=True),
        *[cuts] * 3,
        *[fails(503)] * 3,
        streams(event(3), broken),
        streams(event(4), DONE),
        sends(job),
    ]
    said: list[str] = []
    async with scripted_api(*scripts) as api:
        if asynchronous:
            async with AsyncLuthier(url=api.url, api_key="key") as following:
                ended = await following.wait(stored.id, on_event=lambda one: said.append(one.message))
        else:
            with Luthier(url=api.url, api_key="key") as blocking:
                ended = await asyncio.to_thread(blocking.wait, stored.id, on_event=lambda one: said.append(one.message))
    assert ended.status == "cancelled" and said == ["1", "2", "3", "4"]
    assert [seen.headers.get("last-event-id") for seen in api.seen] == [None, *["e2"] * 7, "e3", None]


async def test_result_files_are_downloaded_by_name(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, tmp_path: Path
) -> None:
    held = await claimed(ctx, caller)
    job = (await sdk.fine_tuning.jobs.retrieve(held.job.id)).to_dict()
    file = {"purpose": "fine-tune-results", "bytes": 3, "created_at": 1, "expires_at": None}
    scripts = [
        sends({**job, "result_files": ["file-1"]}),
        sends({**file, "id": "file-1", "filename": "../../step_metrics.csv"}),
        streams(b"a,b", kind="application/octet-stream"),
    ]
    async with scripted_api(*scripts) as api:
        with Luthier(url=api.url, api_key="k") as blocking:
            (written,) = await asyncio.to_thread(blocking.download, held.job.id, tmp_path / "sync")
    assert written == tmp_path / "sync/step_metrics.csv" and written.read_bytes() == b"a,b"
    async with scripted_api(*scripts) as api, AsyncLuthier(url=api.url, api_key="k") as other:
        (written,) = await other.download(held.job.id, tmp_path / "async")
    assert written == tmp_path / "async/step_metrics.csv" and written.read_bytes() == b"a,b"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_large_file_goes_in_parts_and_arrives_whole(
    asynchronous: bool, sdk: AsyncLuthier, sync_sdk: Luthier, rows: Path
) -> None:
    moved: list[tuple[int, int]] = []
    options: dict[str, Any] = {"part_bytes": 1000, "on_progress": lambda done, total: moved.append((done, total))}
    if asynchronous:
        file = await sdk.upload_large(rows, **options)
    else:
        file = await asyncio.to_thread(lambda: sync_sdk.upload_large(rows, **options))
    assert (file.filename, await (await sdk.files.download(file.id)).read()) == ("rows.jsonl", ROWS)
    assert moved[-1] == (len(ROWS), len(ROWS)) and moved == sorted(moved)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_interrupted_upload_sends_what_is_missing(
    asynchronous: bool, sdk: AsyncLuthier, sync_sdk: Luthier, rows: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise OSError("interrupted")

    async def upload(on_progress: Any) -> Any:
        if asynchronous:
            return await sdk.upload_large(rows, part_bytes=1000, parallel=2, on_progress=on_progress)
        return await asyncio.to_thread(
            lambda: sync_sdk.upload_large(rows, part_bytes=1000, parallel=2, on_progress=on_progress)
        )

    with pytest.raises(OSError, match="interrupted"):
        await upload(interrupt)
    (journal,) = (tmp_path / "cache/luthier/uploads").iterdir()
    before = json.loads(journal.read_text())
    moved: list[int] = []
    file = await upload(lambda done, total: moved.append(done))
    assert await (await sdk.files.download(file.id)).read() == ROWS
    assert len(ROWS) // 2 < len(before["part_ids"]) * 1000 and moved[0] > len(ROWS) // 2
    assert not journal.exists()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_upload_that_was_cancelled_meanwhile_begins_again(
    asynchronous: bool, sdk: AsyncLuthier, sync_sdk: Luthier, rows: Path, tmp_path: Path
) -> None:
    def interrupt(done: int, total: int) -> None:
        raise OSError("interrupted")

    async def upload(on_progress: Any) -> Any:
        if asynchronous:
            return await sdk.upload_large(rows, part_bytes=4000, on_progress=on_progress)
        return await asyncio.to_thread(lambda: sync_sdk.upload_large(rows, part_bytes=4000, on_progress=on_progress))

    with pytest.raises(OSError, match="interrupted"):
        await upload(interrupt)
    (journal,) = (tmp_path / "cache/luthier/uploads").iterdir()
    await sdk.uploads.cancel(json.loads(journal.read_text())["upload_id"])
    file = await upload(None)
    assert await (await sdk.files.download(file.id)).read() == ROWS


def test_parts_cover_the_file_once() -> None:
    assert [(part.start, part.length) for part in parts_of(10, 4)] == [(0, 4), (4, 4), (8, 2)]
    for length, part_bytes in ((0, 4), (10_001, 1), (5, 0)):
        with pytest.raises(ValueError, match="parts"):
            parts_of(length, part_bytes)


async def test_the_official_client_points_here(sync_sdk: Luthier, sdk: AsyncLuthier, engine: ScriptedEngine) -> None:
    def complete() -> str:
        with sync_sdk.openai() as client:
            return client.completions.create(model="luthier-tiny", prompt="Hello").choices[0].text

    assert await asyncio.to_thread(complete) == "café"
    async with sdk.openai() as client:
        assert (await client.completions.create(model="luthier-tiny", prompt="Hello")).choices[0].text == "café"


def test_arguments_win_over_the_environment_and_this_over_the_file(tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    with pytest.raises(ConfigurationError, match="luthier login"):
        find_service(environment=environment)
    stored = Service("http://stored", 'key"with"\\and#')
    path = store_service(stored, environment)
    assert path == config_path(environment) and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_service(environment=environment) == stored
    environment |= {"LUTHIER_URL": "http://set/v1/", "LUTHIER_API_KEY": "set"}
    assert find_service(environment=environment) == Service("http://set", "set")
    assert find_service("https://given", "given", environment) == Service("https://given", "given")
    with pytest.raises(ConfigurationError, match="http://"):
        find_service("given", environment=environment)
    path.write_text("url = ")
    with pytest.raises(ConfigurationError, match=str(path)):
        find_service(environment={"XDG_CONFIG_HOME": str(tmp_path)})
