"""`luthier push` against the service: PEFT's folder goes as an archive, and the verdict is the exit code."""

import asyncio
import io
import time
import zipfile
from pathlib import Path

import pytest

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.model import Model
from service.installation.context import Context
from service.operations import lookups
from service.operations.import_work import IMPORT, HeldImport
from service.storage.base import read
from service.work import claims
from tests.given.command import called

pytestmark = pytest.mark.usefixtures("configured")
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
