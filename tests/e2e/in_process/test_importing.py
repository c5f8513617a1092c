"""An adapter that PEFT made elsewhere becomes a model like any other; one that crashes its reader ends as an error."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file

from service.installation.context import Context
from service.installation.storage import open_storage
from service.operations import chores
from service.operations.import_work import IMPORT
from service.operations.keys import Caller
from service.work import claims
from tests.given.engines import CPU, greedy, listening
from tests.given.peft_made import save_peft_lora
from tests.given.work import set_work
from tests.given.worker import END_SECONDS, artifact, create, ended, installation, worker
from workers.engines.embedded.engine import Engine
from workers.jobs import import_adapter
from workers.model.load import load_base, tensors_digest

pytestmark = pytest.mark.slow
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
async def ctx(tmp_path: Path, port: int) -> AsyncIterator[Context]:
    async with installation(tmp_path, engine_urls=f"http://127.0.0.1:{port}", crash_limit=2) as ctx:
        yield ctx


async def sent(client: httpx.AsyncClient, folder: Path, **fields: str) -> dict[str, Any]:
    files = {
        "adapter_config": (CONFIG, (folder / CONFIG).read_bytes()),
        "adapter_model": (WEIGHTS, (folder / WEIGHTS).read_bytes()),
    }
    response = await client.post("/models", data={"base": "tiny", **fields}, files=files)
    assert response.status_code == 200, response.text
    created: dict[str, Any] = response.json()
    return created


async def finished(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    async with asyncio.timeout(END_SECONDS):
        while (found := (await client.get(f"/model_imports/{id}")).json())["status"] in ("queued", "running"):
            await asyncio.sleep(0.2)
    result: dict[str, Any] = found
    return result


async def test_a_lora_of_peft_is_imported_announced_called_exported_and_continued(
    ctx: Context, caller: Caller, client: httpx.AsyncClient, port: int, tmp_path: Path
) -> None:
    base = ctx.catalogue.bases["tiny"]
    folder = save_peft_lora(base, tmp_path / "made-by-peft", use_rslora=True)
    imported = await sent(client, folder, suffix="mine")
    lost = await claims.claim(ctx, IMPORT, "a worker that was killed", ["tiny"])
    assert lost is not None
    await set_work(ctx, imported["id"], lease_expires_at=0.0)
    engine = Engine(base, load_base(base, CPU), open_storage(ctx.settings), tmp_path / "cache")
    async with listening(engine, port), worker(ctx):
        found = await finished(client, imported["id"])
        assert found["status"] == "succeeded", found
        name = found["model"]
        assert name.startswith("ft:tiny:luthier:mine:")
        figures = found["agreement"]["figures"]
        assert figures["trained_effect"] > 0.01
        assert figures["slope"] == pytest.approx(1, abs=1e-3)

        assert (await client.get(f"/models/{name}")).json()["imported"] is True
        asked = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
        said = [
            (await client.post("/completions", json={"model": model, **asked})).json()["choices"][0]["text"]
            for model in (name, "tiny")
        ]
        assert said[0] != said[1]

        exported = await client.get(f"/models/{name}/content")
        with zipfile.ZipFile(io.BytesIO(exported.content)) as archive:
            archive.extractall(tmp_path / "exported")
        before, after = load_file(folder / WEIGHTS), load_file(tmp_path / "exported" / WEIGHTS)
        assert tensors_digest(before) == tensors_digest(after)

        async with asyncio.timeout(END_SECONDS):
            while (found := await client.get(f"/models/{name}/content?format=merged")).status_code == 202:
                await asyncio.sleep(0.1)
        assert found.status_code == 200, found.text
        with zipfile.ZipFile(io.BytesIO(found.content)) as archive:
            archive.extractall(tmp_path / "merged")
        alone = load_base(base.model_copy(update={"source": str(tmp_path / "merged")}), CPU)
        ids = alone.tokenizer(asked["prompt"])["input_ids"]
        assert alone.tokenizer.decode(greedy(alone, None, ids, 8)) == said[0]

        (job,) = await ended(ctx, caller, await create(ctx, caller, 1, epochs=1, model=name))
        assert (job.status, job.parent_model) == ("succeeded", name)
        assert job.tuning["lora"]["use_rslora"] is True

    assert (await client.get("/files", params={"purpose": "user_data"})).json()["data"] == []
    assert (await client.delete(f"/models/{name}")).status_code == 200
    await chores.sweep(ctx)
    assert not list(artifact(ctx, name).glob("*"))


async def test_what_crashes_its_reader_is_tried_again_and_then_an_error(
    ctx: Context, client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_adapter, "MODULE", "tests.given.no_such_errand")
    folder = save_peft_lora(ctx.catalogue.bases["tiny"], tmp_path / "made-by-peft")
    imported = await sent(client, folder)
    async with worker(ctx):
        found = await finished(client, imported["id"])
    assert (found["status"], found["error"]["code"]) == ("failed", "worker_crashed")
    assert "2 times" in found["error"]["message"]
    assert [model["id"] for model in (await client.get("/models")).json()["data"]] == ["tiny"]
