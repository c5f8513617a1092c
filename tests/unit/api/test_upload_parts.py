"""The parts of uploads through HTTP: streamed to storage, bounded; a wrong form leaves nothing."""

from collections.abc import AsyncIterator

import httpx
import pytest

from service.domain.upload import PART_LIMIT_BYTES, PARTS_LIMIT, UPLOAD_LIMIT_BYTES
from service.installation.context import Context
from service.settings.settings import Settings
from tests.given.files_by_http import stored
from tests.given.forms import END, HEADERS, field
from tests.given.uploads_by_http import CONTENT, complete, content_of, create, data_part, good, refused, send, set_row

MIB = 1024 * 1024
WRONG_FORMS = {
    "no data": (field("part", "x")[:-3] + END, "Unknown parameter: 'part'."),
    "nothing": (END, "Missing required parameter: 'data'."),
    "two parts": (data_part(b"x") + data_part(b"y") + END, "'data' is in the form of your request twice."),
    "more fields": (data_part(b"x") + field("md5", "y") + END, "Unknown parameter: 'md5'."),
    "ends early": (data_part(CONTENT), "it ends before its last boundary"),
    "not a form": (b"hello", "The multipart form cannot be read"),
}


async def test_a_part_is_on_disk_before_its_last_byte_is_sent(client: httpx.AsyncClient, settings: Settings) -> None:
    upload = await create(client, 16 * MIB)
    head, tail = data_part(b"|").split(b"|")
    on_disk: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        yield head
        for _ in range(256):
            yield b"x" * (MIB // 16)
        on_disk.append(sum(path.stat().st_size for path in stored(settings)))
        yield tail + END

    part = good(await client.post(f"/uploads/{upload['id']}/parts", content=chunks(), headers=HEADERS))
    assert on_disk[0] >= 14 * MIB
    assert good(await complete(client, upload["id"], [part["id"]]))["file"]["bytes"] == 16 * MIB


@pytest.mark.parametrize("announced", [True, False])
async def test_a_part_has_at_most_64_mib(client: httpx.AsyncClient, settings: Settings, announced: bool) -> None:
    upload = await create(client, PART_LIMIT_BYTES)
    head, tail = data_part(b"|").split(b"|")
    block = bytes(MIB)

    async def form(size: int) -> AsyncIterator[bytes]:
        yield head
        for start in range(0, size, MIB):
            yield block[: size - start]
        yield tail + END

    url = f"/uploads/{upload['id']}/parts"
    length = {"Content-Length": str(PART_LIMIT_BYTES + 2 * MIB)} if announced else {}
    over = await client.post(url, content=form(PART_LIMIT_BYTES + 1), headers={**HEADERS, **length})
    refused(over, "a part may have at most 67,108,864 bytes", "data", 413)
    assert over.json()["error"]["code"] == "part_too_large"
    assert stored(settings) == []
    if not announced:
        good(await client.post(url, content=form(PART_LIMIT_BYTES), headers=HEADERS))


async def test_the_parts_of_an_upload_have_at_most_8_gib(
    ctx: Context, client: httpx.AsyncClient, settings: Settings
) -> None:
    upload = await create(client, 0)
    await set_row(ctx, upload["id"], stored_bytes=UPLOAD_LIMIT_BYTES - 5)
    refused(await send(client, upload["id"], b"123456"), "at most 8,589,934,592 bytes together", "data")
    assert stored(settings) == []
    good(await send(client, upload["id"], b"12345"))
    await set_row(ctx, upload["id"], stored_bytes=0, stored_parts=PARTS_LIMIT)
    refused(await send(client, upload["id"], b""), "at most 10,000 parts", "data")


@pytest.mark.parametrize("name", WRONG_FORMS)
async def test_a_wrong_form_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, settings: Settings, name: str
) -> None:
    upload = await create(client)
    body, message = WRONG_FORMS[name]
    response = await client.post(f"/uploads/{upload['id']}/parts", content=body, headers=HEADERS)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert stored(settings) == []
    refused(await complete(client, upload["id"], ["x"]), "No part 'x'", "part_ids")


async def test_data_without_a_filename_is_a_part_too(client: httpx.AsyncClient) -> None:
    upload = await create(client, 9)
    body = field("data", "some rows") + END
    part = good(await client.post(f"/uploads/{upload['id']}/parts", content=body, headers=HEADERS))
    file = good(await complete(client, upload["id"], [part["id"]]))["file"]
    assert await content_of(client, file["id"]) == b"some rows"
