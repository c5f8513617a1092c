"""`luthier push` and `luthier pull` against the service: what goes there, what comes, and exit codes."""

import asyncio
import io
import time
import zipfile
from pathlib import Path

import pytest
from luthier import AsyncLuthier

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.model import Model
from service.domain.storage_keys import merged_key
from service.installation.context import Context
from service.operations import lookups
from service.operations.import_work import IMPORT, HeldImport
from service.operations.keys import Caller
from service.operations.merge_work import MERGE, HeldMerge
from service.storage.base import one_chunk, read
from service.work import claims
from tests.given.command import called
from tests.given.stored_jobs import add_job
from tests.given.stored_models import add_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("configured")]
NAME = "ft:luthier-tiny:luthier:mine:AAAAAAAA"


async def held(ctx: Context) -> HeldImport:
    """The import that the command has made."""
    async with asyncio.timeout(30):
        while (claim := await claims.claim(ctx, IMPORT, "one", ["luthier-tiny"])) is None:
            await asyncio.sleep(0.02)
    return HeldImport(ctx, claim)


def model(imported: HeldImport) -> Model:
    made = imported.imported
    return Model(NAME, made.project_id, None, made.base, "final", 0, "lora", int(time.time()), import_id=made.id)


async def test_a_folder_is_pushed_and_its_model_or_what_is_wrong_with_it_is_said(ctx: Context, tmp_path: Path) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
    for name, content in {**files, "README.md": b"not sent"}.items():
        (tmp_path / name).write_bytes(content)
    running = asyncio.create_task(called("push", str(tmp_path), "--base", "luthier-tiny", "--suffix", "mine"))
    first = await held(ctx)
    stored = await lookups.find_file(ctx, first.imported.files["adapter.zip"])
    assert stored is not None
    with zipfile.ZipFile(io.BytesIO(await read(ctx.storage, stored[1][0].key))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    figures = {"served_effect": 0.5, "trained_effect": 0.5, "tokens": 1024}
    await first.finish(model(first), wording.imported_agrees(figures, decisive=True), 1.0)
    done = await running
    assert (done.code, done.stdout) == (0, f"{NAME}\n")
    assert "over 1024 tokens" in done.stderr

    running = asyncio.create_task(called("models", "import", str(tmp_path), "--base", "luthier-tiny"))
    await (await held(ctx)).fail(JobError("invalid_adapter", "The adapter cannot be imported: no.", "file"))
    done = await running
    assert done.code == 1
    assert "The adapter cannot be imported: no." in done.stderr
    (tmp_path / "adapter_config.json").unlink()
    missing = await called("push", str(tmp_path), "--base", "luthier-tiny")
    assert (missing.code, "adapter_config.json" in missing.stderr) == (5, True)


async def test_a_merged_model_is_waited_for_and_written(
    ctx: Context, caller: Caller, sdk: AsyncLuthier, tmp_path: Path
) -> None:
    await add_model(ctx, caller, (await add_job(ctx, caller)).id, NAME, kind="final")
    running = asyncio.create_task(called("pull", NAME, "--format", "merged", "--to", str(tmp_path / "model.zip")))
    async with asyncio.timeout(30):
        while (claim := await claims.claim(ctx, MERGE, "one", ["luthier-tiny"])) is None:
            await asyncio.sleep(0.02)
    merge = HeldMerge(ctx, claim)
    await ctx.storage.put(merged_key(merge.merge.id), one_chunk(b"PK merged"))
    assert await merge.finish(9, "0" * 64)
    done = await running
    assert (done.code, (tmp_path / "model.zip").read_bytes()) == (0, b"PK merged"), done.stderr
    assert (await sdk.pull(NAME, tmp_path / "again.zip", format="merged")).read_bytes() == b"PK merged"
