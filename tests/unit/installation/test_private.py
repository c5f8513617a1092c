"""What is in the data folder is its owner's alone: rights of folders and files, the engines' key, what `up` prints."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.commands.up import KEY_FILE, welcome
from service.installation.create import opened
from service.installation.engine_key import bearer, engine_key
from service.installation.private import keep_private, make_private
from service.settings.settings import Settings
from service.storage.base import one_chunk


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Restored: a process has one."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_folders_and_files_are_the_owners_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    keep_private()
    async with opened(Settings(data_dir=data, engine_urls="")) as ctx:
        await ctx.storage.put("files/a", one_chunk(b"abc"))
        engine_key(ctx.settings)
    assert rights(data) == 0o700
    for path in data.rglob("*"):
        assert rights(path) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("module", ["service", "workers"])
def test_every_command_starts_private(module: str) -> None:
    run = f"import runpy, sys; sys.argv = ['x', '--help']; runpy.run_module('{module}', run_name='__main__')"
    program = f"import atexit, os\natexit.register(lambda: print('umask', oct(os.umask(0))))\n{run}"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "umask 0o77" in found.stdout, found.stderr


def test_a_folder_whose_name_is_not_utf8_is_refused_at_once(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with pytest.raises(ValueError, match=r"LUTHIER_DATA_DIR: '.*caf\\udce9' is not UTF-8"):
        make_private(folder)
    assert not folder.exists()
    make_private(tmp_path / "café")


def test_the_engines_key_is_made_once_and_a_setting_takes_precedence(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    assert engine_key(settings, create=False) == ""
    key = engine_key(settings)
    assert len(key) >= 32
    assert engine_key(settings) == engine_key(settings, create=False) == key
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["engine-key"]
    assert engine_key(Settings(data_dir=tmp_path / "data", engine_api_key="mine")) == "mine"  # type: ignore[arg-type]
    assert engine_key(Settings(data_dir=tmp_path / "data", engine_api_key="off")) == ""  # type: ignore[arg-type]
    assert (bearer("mine"), bearer("")) == ({"Authorization": "Bearer mine"}, {})


def test_only_a_terminal_is_shown_the_key(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("sk-luthier-secret\n")
    settings = Settings(data_dir=tmp_path)
    assert "sk-luthier-secret" in welcome(settings, to_a_terminal=True)
    shown = welcome(settings, to_a_terminal=False)
    assert "sk-luthier-secret" not in shown
    assert f"export LUTHIER_API_KEY=$(cat {tmp_path / KEY_FILE})" in shown
