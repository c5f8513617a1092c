"""A tuned model is taken home as a zip archive: whole, continued, the same bytes each time, and only by its project."""

import hashlib
import io
import zipfile

import httpx
import pytest

from service.domain.storage_keys import artifact_prefix
from service.installation.context import Context
from service.operations import keys, model_content
from service.operations.keys import Caller
from service.storage.base import StorageError, one_chunk
from tests.given.stored_jobs import add_job
from tests.given.stored_models import add_model, store_files

MODEL = "ft:luthier-tiny:luthier:x:AAAAAAAA"
PATH = f"/models/{MODEL}/content"
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": bytes(range(256)) * 10_000}


@pytest.fixture
async def manifest(ctx: Context, caller: Caller) -> bytes:
    await add_model(ctx, caller, (await add_job(ctx, caller)).id, MODEL, kind="final")
    return await store_files(ctx, MODEL, FILES)


async def test_the_archive_holds_the_stored_bytes_and_says_its_length_and_hash(
    client: httpx.AsyncClient, manifest: bytes
) -> None:
    response = await client.get(PATH, params={"format": "peft"})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/zip")
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.headers["luthier-manifest-sha256"] == hashlib.sha256(manifest).hexdigest()
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {**FILES, "manifest.json": manifest}
    assert (await client.get(PATH)).content == response.content
    await client.post("/model_aliases", json={"name": "support", "model": MODEL})
    assert (await client.get("/models/support/content")).content == response.content


async def test_a_download_continues_where_it_was_interrupted(client: httpx.AsyncClient, manifest: bytes) -> None:
    whole = await client.get(PATH)
    for start in (1, 1_500_000, len(whole.content) - 1):
        rest = await client.get(PATH, headers={"Range": f"bytes={start}-", "If-Range": whole.headers["etag"]})
        assert (rest.status_code, rest.content) == (206, whole.content[start:])
        length = len(whole.content)
        assert rest.headers["content-range"] == f"bytes {start}-{length - 1}/{length}"
    other = await client.get(PATH, headers={"Range": "bytes=9-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, whole.content)
    assert (await client.get(PATH, headers={"Range": f"bytes={len(whole.content)}-"})).status_code == 416


async def test_only_its_project_takes_a_model_home(
    ctx: Context, client: httpx.AsyncClient, stranger: httpx.AsyncClient, stranger_key: str, manifest: bytes
) -> None:
    assert (await stranger.get(PATH)).status_code == 404
    other = (await keys.authenticate(ctx, stranger_key)).project_id
    await client.post(f"/fine_tuning/checkpoints/{MODEL}/permissions", json={"project_ids": [other]})
    assert (await stranger.get(PATH)).status_code == 403
    assert (await client.get("/models/luthier-tiny/content")).status_code == 403
    assert (await client.get(PATH, params={"format": "gguf"})).status_code == 400


async def test_a_damaged_file_breaks_the_download_off(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, manifest: bytes
) -> None:
    key = artifact_prefix(MODEL) + "adapter_config.json"
    await ctx.storage.put(key, one_chunk(b"[]"))
    damaged = await model_content.find(ctx, caller, MODEL)
    with pytest.raises(StorageError, match="damaged file"):
        [chunk async for chunk in damaged.chunks()]
    await ctx.storage.delete(key)
    missing = await client.get(PATH)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_files_missing")
