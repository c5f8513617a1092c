"""What a project may have: files, bytes, open uploads, jobs that have not started; others are not affected."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.settings.settings import Settings
from tests.given.jobs_by_http import JOBS, create

UPLOAD = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 3, "mime_type": "text/jsonl"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        engine_urls="",
        project_files=3,
        project_bytes=2_000_000,
        project_uploads=2,
        project_jobs=2,
        wandb_entities="ours, theirs",
    )


def refusal(response: httpx.Response) -> tuple[int, str, str]:
    error: dict[str, Any] = response.json()["error"]
    return response.status_code, error["code"], error["message"]


def form(size: int) -> dict[str, Any]:
    return {"files": {"file": ("a.jsonl", b"x" * size)}, "data": {"purpose": "user_data"}}


async def test_files_are_counted_until_they_are_deleted(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    ids = [(await client.post("/files", **form(1))).json()["id"] for _ in range(3)]
    refused = await client.post("/files", **form(1))
    status, code, message = refusal(refused)
    assert (status, code) == (429, "insufficient_quota")
    assert refused.json()["error"]["type"] == "insufficient_quota"
    assert refused.headers["x-should-retry"] == "false"
    assert message.startswith("Your project has 3 files, and may have 3. Please delete")
    assert (await stranger.post("/files", **form(1))).status_code == 200
    await client.delete(f"/files/{ids[0]}")
    assert (await client.post("/files", **form(1))).status_code == 200


async def test_bytes_are_counted_before_they_are_read_and_after(client: httpx.AsyncClient) -> None:
    assert (await client.post("/files", **form(1_500_000))).status_code == 200
    for size in (900_000, 500_001):  # seen in the length of the request; seen when the file is stored
        status, code, message = refusal(await client.post("/files", **form(size)))
        assert (status, code) == (413, "project_bytes_exceeded")
        assert "1,500,000 bytes, and may have 2,000,000" in message
    assert (await client.post("/files", **form(500_000))).status_code == 200


async def test_an_upload_is_counted_as_announced_and_as_stored(client: httpx.AsyncClient) -> None:
    assert refusal(await client.post("/uploads", json=UPLOAD | {"bytes": 2_000_001}))[:2] == (
        413, "project_bytes_exceeded",
    )  # fmt: skip
    id = (await client.post("/uploads", json=UPLOAD)).json()["id"]
    parts = f"/uploads/{id}/parts"
    assert (await client.post(parts, files={"data": b"x" * 1_500_000})).status_code == 200
    refused = await client.post(parts, files={"data": b"x" * 600_000})
    assert refusal(refused)[:2] == (413, "project_bytes_exceeded")
    assert (await client.post(parts, files={"data": b"x" * 400_000})).status_code == 200


async def test_open_uploads_are_counted_until_they_end(client: httpx.AsyncClient) -> None:
    ids = [(await client.post("/uploads", json=UPLOAD)).json()["id"] for _ in range(2)]
    status, code, message = refusal(await client.post("/uploads", json=UPLOAD))
    assert (status, code) == (429, "insufficient_quota")
    assert "2 open uploads, and may have 2" in message
    await client.post(f"/uploads/{ids[0]}/cancel")
    assert (await client.post("/uploads", json=UPLOAD)).status_code == 200


async def test_files_that_come_in_parts_are_counted_like_others(client: httpx.AsyncClient) -> None:
    for _ in range(3):
        assert (await complete(client, await sent_in_parts(client))).status_code == 200
    refused = await client.post("/uploads", json=UPLOAD)
    assert refusal(refused)[:2] == (429, "insufficient_quota")
    assert refusal(refused)[2].startswith("Your project has 3 files, and may have 3. Please delete")
    assert (await client.post("/files", **form(1))).status_code == 429


async def test_an_open_upload_is_counted_as_the_file_that_it_will_be(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await client.post("/files", **form(1))
    upload = await sent_in_parts(client)
    refused = await client.post("/uploads", json=UPLOAD)
    assert refusal(refused)[:2] == (429, "insufficient_quota")
    assert "2 files and 1 open uploads, and may have 3" in refusal(refused)[2]
    assert refusal(await client.post("/files", **form(1))) == refusal(refused)
    assert (await complete(client, upload)).status_code == 200


async def test_an_upload_that_would_be_one_file_too_many_stays_until_there_is_room(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    upload = await sent_in_parts(client)
    file = (await client.post("/files", **form(1))).json()["id"]
    ctx = app.state.context  # whose operator then allows less
    app.state.context = replace(ctx, settings=ctx.settings.model_copy(update={"project_files": 1}))
    refused = await complete(client, upload)
    assert refusal(refused)[:2] == (429, "insufficient_quota")
    assert refused.headers["x-should-retry"] == "false"
    assert len((await client.get("/files")).json()["data"]) == 1
    await client.delete(f"/files/{file}")
    completed = await complete(client, upload)
    assert (completed.status_code, completed.json()["status"]) == (200, "completed")


async def test_bytes_of_an_upload_are_not_counted_twice_when_it_becomes_a_file(client: httpx.AsyncClient) -> None:
    upload = await sent_in_parts(client, b"x" * 1_900_000)
    assert (await complete(client, upload)).status_code == 200


async def sent_in_parts(client: httpx.AsyncClient, content: bytes = b"abc") -> tuple[str, str]:
    """The ids of an open upload and of the only part that it waits for."""
    id = (await client.post("/uploads", json=UPLOAD | {"bytes": len(content)})).json()["id"]
    sent = await client.post(f"/uploads/{id}/parts", files={"data": content})
    return id, sent.json()["id"]


async def complete(client: httpx.AsyncClient, upload: tuple[str, str]) -> httpx.Response:
    id, part = upload
    return await client.post(f"/uploads/{id}/complete", json={"part_ids": [part]})


async def test_jobs_that_have_not_started_are_counted(client: httpx.AsyncClient) -> None:
    first = await create(client)
    body = {"model": first["model"], "training_file": first["training_file"]}
    assert (await client.post(JOBS, json=body)).status_code == 200
    status, code, message = refusal(await client.post(JOBS, json=body))
    assert (status, code) == (429, "insufficient_quota")
    assert "2 jobs that have not started, and may have 2" in message
    await client.post(f"{JOBS}/{first['id']}/cancel")
    assert (await client.post(JOBS, json=body)).status_code == 200


@pytest.mark.parametrize(("entity", "status"), [("theirs", 200), (None, 200), ("nobodys", 400), ("", 400), ("*", 400)])
async def test_runs_go_to_the_entities_that_the_operator_allows(
    client: httpx.AsyncClient, entity: str | None, status: int
) -> None:
    first = await create(client)
    wandb = {"project": "p"} | ({} if entity is None else {"entity": entity})
    body = {"model": first["model"], "training_file": first["training_file"]}
    response = await client.post(JOBS, json=body | {"integrations": [{"type": "wandb", "wandb": wandb}]})
    assert response.status_code == status, response.text
    assert status == 200 or "It allows one of ours, theirs; LUTHIER_WANDB_ENTITIES" in response.text
