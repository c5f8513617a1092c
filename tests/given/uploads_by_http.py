"""Uploads in parts through the API; what only time would bring is written into the database."""

from collections.abc import Sequence
from typing import Any

import httpx
from sqlalchemy import update

from service.db import tables
from service.installation.context import Context
from tests.given.forms import field

CONTENT = b'{"messages": []}\n' * 1000
THREE = (CONTENT[:7000], CONTENT[7000:7001], CONTENT[7001:])


async def create(client: httpx.AsyncClient, size: int = len(CONTENT), **change: Any) -> dict[str, Any]:
    body = {"filename": "train.jsonl", "purpose": "fine-tune", "bytes": size, "mime_type": "text/jsonl", **change}
    return good(await client.post("/uploads", json=body))


async def send(client: httpx.AsyncClient, upload_id: str, content: bytes) -> httpx.Response:
    return await client.post(f"/uploads/{upload_id}/parts", files={"data": ("upload", content)})


async def send_all(client: httpx.AsyncClient, upload_id: str, parts: Sequence[bytes]) -> list[str]:
    return [good(await send(client, upload_id, part))["id"] for part in parts]


async def complete(client: httpx.AsyncClient, upload_id: str, part_ids: Sequence[str], **more: Any) -> httpx.Response:
    return await client.post(f"/uploads/{upload_id}/complete", json={"part_ids": part_ids, **more})


async def cancel(client: httpx.AsyncClient, upload_id: str) -> httpx.Response:
    return await client.post(f"/uploads/{upload_id}/cancel")


async def content_of(client: httpx.AsyncClient, file_id: str) -> bytes:
    return (await client.get(f"/files/{file_id}/content")).content


async def set_row(ctx: Context, upload_id: str, **values: int) -> None:
    """Sets what only time, or eight gigabytes, would bring."""
    async with ctx.database.transaction() as tx:
        await tx.connection.execute(update(tables.uploads).where(tables.uploads.c.id == upload_id).values(values))


def good(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def refused(response: httpx.Response, message: str, param: str, status: int = 400) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert message in error["message"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def data_part(content: bytes) -> bytes:
    """Of a form: a file, as the SDKs send it."""
    return field("data", "|").replace(b'"data"', b'"data"; filename="upload"').replace(b"|", content)
