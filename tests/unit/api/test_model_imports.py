"""Imports of models through HTTP: what is refused before a worker reads a byte, and what stays of it."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.domain.errors import JobError
from service.installation.context import Context
from service.operations import chores
from service.operations.import_work import IMPORT, HeldImport
from service.work import claims
from tests.given.files_by_http import upload
from tests.given.work import set_work, work_of

BASE = "luthier-tiny"
ZIP = {"file": ("adapter.zip", b"PK")}
BOTH = {"adapter_config": ("a", b"{}"), "adapter_model": ("b", b"x")}


async def sent(client: httpx.AsyncClient, files: Any = ZIP, **fields: str) -> httpx.Response:
    return await client.post("/models", data={"base": BASE, **fields}, files=files)


async def user_files(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/files", params={"purpose": "user_data"})).json()["data"]
    return found


@pytest.mark.parametrize("files", [ZIP, BOTH])
async def test_what_was_sent_waits_as_files_of_the_project_until_the_import_has_ended(
    ctx: Context, client: httpx.AsyncClient, files: Any
) -> None:
    created = (await sent(client, files, suffix="mine")).json()
    assert (created["status"], created["base"], created["model"], created["error"]) == ("queued", BASE, None, None)
    assert len(await user_files(client)) == len(files)
    claim = await claims.claim(ctx, IMPORT, "one", [BASE])
    assert claim is not None
    await HeldImport(ctx, claim).fail(JobError("invalid_adapter", "The adapter cannot be imported: no.", "file"))
    found = (await client.get(f"/model_imports/{created['id']}")).json()
    assert (found["status"], found["error"]["message"]) == ("failed", "The adapter cannot be imported: no.")
    assert await user_files(client) == []
    assert await work_of(ctx, created["id"]) is None


async def test_a_file_that_was_named_stays(ctx: Context, client: httpx.AsyncClient) -> None:
    file = (await upload(client))["id"]
    boundary = {"base": (None, BASE), "file_id": (None, file)}
    assert (await client.post("/models", files=boundary)).status_code == 200
    claim = await claims.claim(ctx, IMPORT, "one", [BASE])
    assert claim is not None
    await HeldImport(ctx, claim).fail(JobError("invalid_adapter", "No.", "file"))
    assert (await client.get(f"/files/{file}")).status_code == 200


@pytest.mark.parametrize(
    ("files", "fields", "said"),
    [
        (ZIP, {"base": "nowhere"}, "There is no base 'nowhere'"),
        (ZIP, {"base": ""}, "base"),
        (ZIP, {"suffix": "a b"}, "suffix"),
        (ZIP, {"novel": "1"}, "novel"),
        (ZIP, {"file_id": "file-1"}, "not both"),
        (ZIP | BOTH, {}, "one zip archive"),
        ({"adapter_config": ("a", b"{}")}, {}, "one zip archive"),
        ({"adapter_config": ("a", b"x" * 1_100_000), "adapter_model": ("b", b"")}, {}, "too large"),
        ([("file", ("a", b"PK")), ("file", ("b", b"PK"))], {}, "'file' is in the form of your request twice"),
        ({"file": ("a", b"PK")}, {"suffix": ["one", "two"]}, "'suffix' is in the form of your request twice"),
    ],
)
async def test_a_wrong_request_is_refused_and_leaves_nothing(
    ctx: Context, client: httpx.AsyncClient, files: Any, fields: dict[str, str], said: str
) -> None:
    response = await sent(client, files, **fields)
    assert response.status_code in (400, 413), response.text
    assert said in response.json()["error"]["message"]
    assert await user_files(client) == []
    assert (await client.get("/model_imports")).json()["data"] == []
    await chores.sweep(ctx)
    assert not [path for path in (ctx.settings.data_dir / "objects").rglob("*") if path.is_file()]


async def test_another_projects_file_and_import_are_unknown(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    file = (await upload(client))["id"]
    response = await stranger.post("/models", files={"base": (None, BASE), "file_id": (None, file)})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "file_id")
    created = (await sent(client)).json()
    assert (await stranger.get(f"/model_imports/{created['id']}")).status_code == 404
    assert (await stranger.get("/model_imports")).json()["data"] == []
    assert (await client.get("/model_imports")).json()["data"] == [created]


async def test_unfinished_imports_count_and_those_whose_worker_keeps_ending_are_an_error(
    ctx: Context, app: FastAPI, client: httpx.AsyncClient
) -> None:
    first = (await sent(client)).json()["id"]
    app.state.context = replace(ctx, settings=ctx.settings.model_copy(update={"project_jobs": 1}))
    response = await sent(client)
    assert (response.status_code, response.json()["error"]["type"]) == (429, "insufficient_quota")
    assert len(await user_files(client)) == 1
    for _ in range(ctx.settings.crash_limit):
        assert await claims.claim(ctx, IMPORT, "killed", [BASE]) is not None
        await set_work(ctx, first, lease_expires_at=0.0)
    assert await claims.claim(ctx, IMPORT, "next", [BASE]) is None
    found = (await client.get(f"/model_imports/{first}")).json()
    assert (found["status"], found["error"]["code"]) == ("failed", "worker_crashed")
    assert (await sent(client)).status_code == 200
