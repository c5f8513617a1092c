"""`luthierd bases add` and `remove`: into which file, what is refused before anything is read, and the whole way."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.commands.add_base import Wanted, add, catalogue_path, remove
from service.domain.errors import InvalidRequest
from service.installation.context import Context
from service.operations.keys import Caller
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.recipes.catalogue_file import with_base
from service.settings.settings import Settings
from tests.given.running_service import write_catalogue
from tests.given.stored_jobs import add_job
from tests.given.tiny_models import make_tiny_base


def refused(settings: Settings, source: str, **wanted: str) -> str:
    with pytest.raises(CatalogueError) as error:
        add(settings, source, Wanted(**wanted), print)
    return str(error.value)


def test_the_data_folders_catalogue_is_used_where_none_is_set(tmp_path: Path) -> None:
    bundled = Settings(data_dir=tmp_path)
    assert bundled.catalogue.parent.name == "service" and catalogue_path(bundled) == tmp_path / "bases.toml"
    (tmp_path / "bases.toml").touch()
    assert Settings(data_dir=tmp_path).catalogue == tmp_path / "bases.toml"
    assert Settings(data_dir=tmp_path, catalogue=tmp_path / "x.toml").catalogue == tmp_path / "x.toml"


def test_a_misspelt_path_an_id_that_is_taken_and_one_that_is_none_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    settings = Settings(data_dir=tmp_path / "data")
    assert "models/smal, but small beside it" in refused(settings, "models/smal")
    assert "There is no folder or file" in refused(settings, "no.gguf")
    assert "smollm2-135m" in refused(settings, "model")
    assert "has 'luthier-tiny' already" in refused(settings, "models/small", id="luthier-tiny")
    assert "cannot be an id" in refused(settings, "models/small", id="a b")
    assert not (tmp_path / "data").exists()


async def test_a_base_that_a_job_needs_is_not_removed(ctx: Context, caller: Caller, tmp_path: Path) -> None:
    (bundled,) = read_catalogue(ctx.settings.catalogue).bases.values()
    path = write_catalogue(tmp_path / "two.toml", bundled)
    path.write_text(with_base(path.read_text(), bundled.model_copy(update={"id": "other"})), encoding="utf-8")
    ctx = dataclasses.replace(ctx, settings=Settings(data_dir=tmp_path, catalogue=path))
    job = await add_job(ctx, caller)
    with pytest.raises(InvalidRequest, match=f"'luthier-tiny' is needed by {job.id}"):
        await remove(ctx, "luthier-tiny")
    assert await remove(ctx, "other") == path
    assert list(read_catalogue(path).bases) == ["luthier-tiny"]
    with pytest.raises(CatalogueError, match="only base"):
        await remove(ctx, "luthier-tiny")


@pytest.mark.slow
def test_a_folder_goes_into_the_data_folders_catalogue_beside_the_bundled_base(tmp_path: Path) -> None:
    folder = Path(make_tiny_base(tmp_path / "my base").source)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    settings = Settings(data_dir=tmp_path / "data")
    command = [sys.executable, "-m", "service", "bases", "add", str(folder)]
    environment = {**os.environ, "LUTHIER_DATA_DIR": str(settings.data_dir)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "licence: apache-2.0" in ended.stdout and "lora: one step trains" in ended.stdout
    catalogue = read_catalogue(Settings(data_dir=settings.data_dir).catalogue)
    assert list(catalogue.bases) == ["luthier-tiny", "my-base"]
    assert (catalogue.bases["my-base"].source, catalogue.bases["my-base"].context_tokens) == (str(folder), 256)
    assert catalogue.bases["luthier-tiny"].learning_rate == {"lora": 2e-3, "prompt": 5e-2}
