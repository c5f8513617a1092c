"""How uploads end, through HTTP: once, whoever else is on the way; what no file needs is swept."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from service.installation.context import Context
from service.operations import chores
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.files_by_http import stored
from tests.given.forms import END, HEADERS
from tests.given.uploads_by_http import (
    CONTENT,
    THREE,
    cancel,
    complete,
    content_of,
    create,
    data_part,
    good,
    refused,
    send,
    send_all,
    set_row,
)


async def end_upload(ctx: Context, client: httpx.AsyncClient, upload_id: str, parts: list[str], status: str) -> None:
    match status:
        case "completed":
            good(await complete(client, upload_id, parts))
        case "cancelled":
            assert good(await cancel(client, upload_id))["status"] == "cancelled"
        case "expired":
            await set_row(ctx, upload_id, expires_at=int(time.time()))


@pytest.mark.parametrize("status", ["completed", "cancelled", "expired"])
@pytest.mark.parametrize("swept", [False, True])
async def test_an_upload_that_has_ended_takes_nothing_any_more(
    ctx: Context, client: httpx.AsyncClient, settings: Settings, status: str, swept: bool
) -> None:
    upload = await create(client)
    parts = await send_all(client, upload["id"], [CONTENT])
    await end_upload(ctx, client, upload["id"], parts, status)
    if swept:
        await chores.sweep(ctx)
    before = stored(settings)
    for answer in [
        await send(client, upload["id"], b"more"),
        await complete(client, upload["id"], parts),
        await cancel(client, upload["id"]),
    ]:
        refused(answer, f"its status is '{status}'", "upload_id")
    assert stored(settings) == before
    assert len(good(await client.get("/files"))["data"]) == (1 if status == "completed" else 0)


@pytest.mark.parametrize("status", ["completed", "cancelled", "expired"])
async def test_the_sweep_leaves_no_object_that_no_file_needs(
    ctx: Context, client: httpx.AsyncClient, settings: Settings, status: str
) -> None:
    pending = await create(client)
    await send_all(client, pending["id"], [b"still wanted"])
    upload = await create(client)
    parts = await send_all(client, upload["id"], [b"not named", *THREE, b"not named either"])
    await end_upload(ctx, client, upload["id"], parts[1:4], status)
    await chores.sweep(ctx)
    assert len(stored(settings)) == 1 + (3 if status == "completed" else 0)
    for file in good(await client.get("/files"))["data"]:
        assert await content_of(client, file["id"]) == CONTENT
        await client.delete(f"/files/{file['id']}")
    await cancel(client, pending["id"])
    await chores.sweep(ctx)
    assert stored(settings) == []


@pytest.mark.parametrize("status", ["completed", "expired"])
async def test_bytes_of_a_request_that_died_are_swept_once_none_can_come_any_more(
    ctx: Context, client: httpx.AsyncClient, settings: Settings, status: str
) -> None:
    upload = await create(client)
    parts = await send_all(client, upload["id"], THREE)
    await ctx.storage.put(f"uploads/{upload['id']}/part_of_a_killed_process", one_chunk(b"lost"))
    await end_upload(ctx, client, upload["id"], parts, status)
    await chores.sweep(ctx)
    kept = 3 if status == "completed" else 0
    assert len(stored(settings)) == kept + 1
    await set_row(ctx, upload["id"], expires_at=int(time.time()) - 600)
    await chores.sweep(ctx)
    assert len(stored(settings)) == kept
    for file in good(await client.get("/files"))["data"]:
        assert await content_of(client, file["id"]) == CONTENT


async def test_of_completes_and_cancels_at_once_one_wins(client: httpx.AsyncClient) -> None:
    upload = await create(client, 3)
    parts = await send_all(client, upload["id"], [b"1", b"2", b"3"])
    orders = [parts, parts[::-1], parts[1:] + parts[:1]]
    ways = [*(complete(client, upload["id"], order) for order in orders * 3), cancel(client, upload["id"])]
    answers = await asyncio.gather(*ways)
    winners = [answer for answer in answers if answer.status_code == 200]
    assert len(winners) == 1
    for answer in answers:
        assert answer is winners[0] or answer.status_code == 400
    files = good(await client.get("/files"))["data"]
    if winners[0].json()["status"] == "completed":
        assert files == [winners[0].json()["file"]]
        assert await content_of(client, files[0]["id"]) in (b"123", b"321", b"231")
    else:
        assert files == []


async def test_a_part_that_is_on_its_way_when_the_upload_completes_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    upload = await create(client)
    parts = await send_all(client, upload["id"], THREE)
    begun, completed = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield data_part(b"late")[:-3]
        begun.set()
        await completed.wait()
        yield data_part(b"late")[-3:] + END

    late = asyncio.create_task(client.post(f"/uploads/{upload['id']}/parts", content=slowly(), headers=HEADERS))
    await asyncio.wait_for(begun.wait(), 10)
    file = good(await complete(client, upload["id"], parts))["file"]
    completed.set()
    refused(await late, "its status is 'completed'", "upload_id")
    assert len(stored(settings)) == 3
    assert await content_of(client, file["id"]) == CONTENT


async def test_a_part_that_is_still_on_its_way_when_the_upload_expires_is_given_up(
    ctx: Context, client: httpx.AsyncClient, settings: Settings
) -> None:
    upload = await create(client)

    async def endless() -> AsyncIterator[bytes]:
        yield data_part(b"late")[:-3]
        await asyncio.sleep(60)

    await set_row(ctx, upload["id"], expires_at=int(time.time()) + 1)
    started = time.monotonic()
    answer = await client.post(f"/uploads/{upload['id']}/parts", content=endless(), headers=HEADERS)
    refused(answer, "its status is 'expired'", "upload_id")
    assert time.monotonic() - started < 30
    assert stored(settings) == []
