"""Uploads through HTTP: parts in any order become one file, what is refused changes nothing, what is left is swept."""

import asyncio
import hashlib
import random
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from fastapi import FastAPI

from service.domain.upload import PARTS_LIMIT, UPLOAD_LIMIT_BYTES
from service.settings.settings import Settings
from tests.given.files_by_http import stored
from tests.given.uploads_by_http import (
    CONTENT,
    THREE,
    cancel,
    complete,
    content_of,
    create,
    good,
    refused,
    send,
    send_all,
)

UNKNOWN = "upload_00000000000000000000000000000000"


async def test_an_upload_has_openais_keys_in_openais_order(client: httpx.AsyncClient) -> None:
    upload = await create(client)
    assert list(upload) == ["id", "object", "bytes", "created_at", "filename", "purpose", "status", "expires_at"]
    assert upload["id"].startswith("upload_")
    assert (upload["object"], upload["status"], upload["bytes"]) == ("upload", "pending", len(CONTENT))
    assert upload["expires_at"] == upload["created_at"] + 3600

    part = good(await send(client, upload["id"], CONTENT))
    assert list(part) == ["id", "object", "created_at", "upload_id"]
    assert part["id"].startswith("part_")
    assert (part["object"], part["upload_id"]) == ("upload.part", upload["id"])

    completed = good(await complete(client, upload["id"], [part["id"]]))
    file = completed.pop("file")
    assert completed == {**upload, "status": "completed"}
    assert file == good(await client.get(f"/files/{file['id']}"))
    assert (file["filename"], file["purpose"], file["bytes"]) == ("train.jsonl", "fine-tune", len(CONTENT))


async def test_parallel_parts_in_random_order_become_the_file_that_part_ids_say(client: httpx.AsyncClient) -> None:
    rng = random.Random(3)
    parts = [rng.randbytes(rng.choice([1, 999, 70_000, 1_500_000])) for _ in range(12)]
    content = b"".join(parts)
    upload = await create(client, len(content))
    order = rng.sample(range(12), 12)
    sent = await asyncio.gather(*(send(client, upload["id"], parts[number]) for number in order))
    ids = dict(zip(order, [good(part)["id"] for part in sent], strict=True))
    md5 = hashlib.md5(content).hexdigest()
    file = good(await complete(client, upload["id"], [ids[number] for number in range(12)], md5=md5))["file"]
    assert await content_of(client, file["id"]) == content


async def test_the_sdk_uploads_a_file_in_chunks(app: FastAPI, key: str, tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    path.write_bytes(CONTENT)
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
    async with openai.AsyncOpenAI(base_url="http://luthier/v1", api_key=key, http_client=http, max_retries=0) as sdk:
        md5 = hashlib.md5(CONTENT).hexdigest()
        upload = await sdk.uploads.upload_file_chunked(
            file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=5000, md5=md5
        )
        assert upload.status == "completed" and upload.file is not None
        assert upload.file.filename == "big.jsonl"
        assert (await sdk.files.content(upload.file.id)).content == CONTENT
        with pytest.raises(openai.BadRequestError) as caught:
            await sdk.uploads.cancel(upload.id)
        assert caught.value.param == "upload_id"
        with pytest.raises(openai.NotFoundError):
            await sdk.uploads.parts.create(UNKNOWN, data=b"x")


async def test_odd_values_of_openais_own_tests_are_accepted(client: httpx.AsyncClient) -> None:
    upload = await create(client, 0, filename="filename", mime_type="mime_type", purpose="assistants")
    part = good(await send(client, upload["id"], b""))["id"]
    full = good(await send(client, upload["id"], b"Example data"))["id"]
    refused(await complete(client, upload["id"], [part, full]), "12 bytes together, but", "part_ids")
    file = good(await complete(client, upload["id"], [part]))["file"]
    assert file["bytes"] == 0
    assert await content_of(client, file["id"]) == b""


async def test_the_file_may_expire(client: httpx.AsyncClient) -> None:
    life = {"anchor": "created_at", "seconds": 3600}
    for more, seconds in [({"expires_after": life}, 3600), ({"purpose": "batch"}, 30 * 24 * 3600)]:
        upload = await create(client, **more)
        file = good(await complete(client, upload["id"], await send_all(client, upload["id"], [CONTENT])))["file"]
        assert file["expires_at"] == file["created_at"] + seconds


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"purpose": "finetune"}, "purpose", "'finetune' is not one of ['fine-tune', 'assistants', 'batch'"),
        ({"purpose": "fine-tune-results"}, "purpose", "'fine-tune-results' is not one of"),
        ({"bytes": -1}, "bytes", "Expected a value >= 0, but got -1 instead."),
        ({"bytes": UPLOAD_LIMIT_BYTES + 1}, "bytes", "Expected a value <= 8589934592"),
        ({"bytes": "5"}, "bytes", "expected an integer, but got a string"),
        ({"filename": ""}, "filename", "string too short"),
        ({"mime_type": None}, "mime_type", "expected a string, but got null"),
        ({"expires_after": {"seconds": 3600}}, "expires_after.anchor", "Missing required parameter"),
        ({"expires_after": {"anchor": "created_at", "seconds": 3599}}, "expires_after.seconds", ">= 3600"),
        ({"md5": "x"}, "md5", "Unknown parameter: 'md5'."),
    ],
)
async def test_what_cannot_become_a_file_is_refused_at_the_start(
    client: httpx.AsyncClient, change: dict[str, Any], param: str | None, message: str
) -> None:
    body = {"filename": "a", "purpose": "fine-tune", "bytes": 1, "mime_type": "text/jsonl", **change}
    refused(await client.post("/uploads", json=body), message, param)


async def test_a_wrong_md5_is_refused_and_the_upload_stays_pending(client: httpx.AsyncClient) -> None:
    upload = await create(client)
    parts = await send_all(client, upload["id"], THREE)
    md5 = hashlib.md5(CONTENT).hexdigest()
    for wrong, order in [("md5", parts), (md5[:-1], parts), (md5, parts[::-1])]:
        refused(await complete(client, upload["id"], order, md5=wrong), "The md5 checksum does not match", "md5")
    assert good(await client.get("/files"))["data"] == []
    file = good(await complete(client, upload["id"], parts, md5=md5.upper()))["file"]
    assert await content_of(client, file["id"]) == CONTENT


async def test_part_ids_that_do_not_make_the_file_are_refused_and_the_upload_stays_pending(
    client: httpx.AsyncClient,
) -> None:
    other = await create(client, 1)
    foreign = (await send_all(client, other["id"], [b"x"]))[0]
    upload = await create(client)
    one, two, three = await send_all(client, upload["id"], THREE)
    for part_ids, message in [
        ([], "array too short"),
        ([one, two], f"7,001 bytes together, but upload {upload['id']} was created for 17,000 bytes"),
        ([one, two, three, one], f"Part '{one}' is in 'part_ids' twice."),
        ([one, two, three, foreign], f"No part '{foreign}' in upload {upload['id']}."),
        ([one, two, "part_x"], "No part 'part_x'"),
        (["p"] * (PARTS_LIMIT + 1), "maximum length 10000"),
        (one, "expected an array"),
    ]:
        refused(await complete(client, upload["id"], part_ids), message, "part_ids")
    assert good(await complete(client, upload["id"], [one, two, three]))["status"] == "completed"


async def test_an_upload_that_nobody_knows_is_404(client: httpx.AsyncClient) -> None:
    for answer in [await send(client, UNKNOWN, b"x"), await complete(client, UNKNOWN, ["x"])]:
        refused(answer, f"No such Upload object: {UNKNOWN}", "upload_id", 404)
    refused(await cancel(client, UNKNOWN), f"No such Upload object: {UNKNOWN}", "upload_id", 404)


async def test_another_projects_upload_is_not_there(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, settings: Settings
) -> None:
    upload = await create(client)
    parts = await send_all(client, upload["id"], THREE)
    for answer in [
        await send(stranger, upload["id"], b"x"),
        await complete(stranger, upload["id"], parts),
        await cancel(stranger, upload["id"]),
    ]:
        refused(answer, f"No such Upload object: {upload['id']}", "upload_id", 404)
    assert len(stored(settings)) == 3
    own = await create(stranger)
    refused(await complete(stranger, own["id"], parts), "No part", "part_ids")
    assert good(await complete(client, upload["id"], parts))["status"] == "completed"


async def test_a_md5_of_bytes_that_storage_has_lost_is_a_503(client: httpx.AsyncClient, settings: Settings) -> None:
    upload = await create(client)
    parts = await send_all(client, upload["id"], THREE)
    stored(settings)[0].unlink()
    answer = await complete(client, upload["id"], parts, md5=hashlib.md5(CONTENT).hexdigest())
    assert answer.status_code == 503
    assert good(await cancel(client, upload["id"]))["status"] == "cancelled"
