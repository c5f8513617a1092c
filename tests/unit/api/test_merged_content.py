"""A model's merged form through HTTP: made once as work, downloaded in stretches, counted and swept."""

import base64
import hashlib
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from service.domain.errors import JobError
from service.domain.storage_keys import merged_key
from service.installation.context import Context
from service.operations import chores
from service.operations.keys import Caller
from service.operations.merge_work import MERGE, HeldMerge
from service.storage.base import one_chunk
from service.work import claims
from tests.given.stored_jobs import add_job
from tests.given.stored_merges import end_long_ago
from tests.given.stored_models import add_model
from tests.given.work import work_of

MODEL = "ft:luthier-tiny:luthier:x:AAAAAAAA"
PATH = f"/models/{MODEL}/content?format=merged"
ARCHIVE = bytes(range(256)) * 5000


@pytest.fixture
async def model(ctx: Context, caller: Caller) -> str:
    return await add_model(ctx, caller, (await add_job(ctx, caller)).id, MODEL, kind="final")


async def held(ctx: Context) -> HeldMerge:
    claim = await claims.claim(ctx, MERGE, "one", ["luthier-tiny"])
    assert claim is not None
    return HeldMerge(ctx, claim)


async def made(ctx: Context, client: httpx.AsyncClient) -> str:
    """As a worker does it; the id of the merge."""
    assert (await client.get(PATH)).status_code == 202
    merge = await held(ctx)
    await ctx.storage.put(merged_key(merge.merge.id), one_chunk(ARCHIVE))
    assert await merge.finish(len(ARCHIVE), hashlib.sha256(ARCHIVE).hexdigest())
    return merge.merge.id


async def test_the_first_request_makes_it_work_and_the_archive_comes_whole_or_from_a_byte_on(
    ctx: Context, client: httpx.AsyncClient, model: str
) -> None:
    first = await client.get(PATH)
    assert (first.status_code, first.json()["status"], first.json()["model"]) == (202, "queued", MODEL)
    assert int(first.headers["retry-after"]) > 0
    assert (await client.get(PATH)).json()["created_at"] == first.json()["created_at"]
    id = await made(ctx, client)
    assert await work_of(ctx, id) is None
    whole = await client.get(PATH)
    assert (whole.status_code, whole.content) == (200, ARCHIVE)
    digest = base64.b64encode(hashlib.sha256(ARCHIVE).digest()).decode()
    assert whole.headers["repr-digest"] == f"sha-256=:{digest}:"
    rest = await client.get(PATH, headers={"Range": "bytes=1000000-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, ARCHIVE[1_000_000:])
    await ctx.storage.delete(merged_key(id))
    assert (await client.get(PATH)).status_code == 202, "what storage has lost is made again"


async def test_a_failure_is_said_once_and_the_next_request_tries_again(
    ctx: Context, client: httpx.AsyncClient, model: str
) -> None:
    assert (await client.get(PATH)).status_code == 202
    await (await held(ctx)).fail(JobError("not_mergeable", "The sum is not finite.", "format"))
    refused = await client.get(PATH)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_mergeable")
    assert "The sum is not finite." in refused.json()["error"]["message"]
    assert (await client.get(PATH)).status_code == 202


async def test_its_bytes_count_and_go_with_its_time_or_its_model(
    ctx: Context, app: FastAPI, client: httpx.AsyncClient, model: str
) -> None:
    id = await made(ctx, client)
    small = replace(ctx, settings=ctx.settings.model_copy(update={"project_bytes": len(ARCHIVE) + 10}))
    app.state.context = small
    refused = await client.post("/files", files={"file": ("a.jsonl", b"x" * 100)}, data={"purpose": "fine-tune"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "project_bytes_exceeded")
    await end_long_ago(ctx, id, seconds=100)
    await chores.sweep(ctx)
    assert (await client.get(PATH)).content == ARCHIVE, "it is kept for a day"
    await end_long_ago(ctx, id, seconds=ctx.settings.merged_life_seconds + 100)
    await chores.sweep(ctx)
    assert not list((ctx.settings.data_dir / "objects" / "merged").rglob("*.zip"))
    id = await made(ctx, client)
    await client.delete(f"/models/{MODEL}")
    await end_long_ago(ctx, id, seconds=100)
    await chores.sweep(ctx)
    assert not list((ctx.settings.data_dir / "objects" / "merged").rglob("*.zip"))


async def test_what_has_no_merged_form_and_what_is_not_the_projects_is_refused(
    ctx: Context, caller: Caller, client: httpx.AsyncClient, stranger: httpx.AsyncClient, model: str
) -> None:
    job = await add_job(ctx, caller)
    head = await add_model(ctx, caller, job.id, "ft:luthier-tiny:luthier:x:CCCCCCCC", task="classify")
    prefix = await add_model(ctx, caller, job.id, "ft:luthier-tiny:luthier:x:DDDDDDDD", tuning="prefix")
    for name, reason in ((head, "output layer"), (prefix, "'prefix' is no difference")):
        refused = await client.get(f"/models/{name}/content", params={"format": "merged"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_mergeable")
        assert reason in refused.json()["error"]["message"]
    assert (await stranger.get(PATH)).status_code == 404
    assert (await client.get("/models/luthier-tiny/content?format=merged")).status_code == 403
    gguf = await client.get(f"/models/{MODEL}/content", params={"format": "gguf"})
    assert (gguf.status_code, "peft" in gguf.json()["error"]["message"]) == (400, True)
    assert "merged" in gguf.json()["error"]["message"]
    assert await claims.claim(ctx, MERGE, "one", ["luthier-tiny"]) is None
