"""What keeps a command from starting is one sentence with what to do, and a full disk does not keep it."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from service.commands.doctor import examine
from service.operations import chores, keys
from service.settings.settings import Settings
from tests.given.forked_process import start_process
from tests.given.installation import installed
from tests.given.small_disk import fill, small_disk

pytestmark = pytest.mark.slow  # each starts a process

MIB = 1024 * 1024
SECONDS = 120.0


def said(*commands: str, **settings: object) -> list[str]:
    """What `luthierd` printed and how it ended, a line each; fails at a traceback."""
    told = {f"LUTHIER_{name.upper()}": str(value) for name, value in settings.items()}
    with TemporaryFile() as stdout, TemporaryFile() as stderr:
        words = ["-m", "tests.given.luthierd_commands", *commands]
        ran = start_process(words, {**os.environ, **told}, stdout, stderr=stderr)
        try:
            assert ran.wait(SECONDS) == 0
        finally:
            ran.kill()
        stdout.seek(0)
        stderr.seek(0)
        assert "Traceback" not in (errors := stderr.read().decode()), errors
        return stdout.read().decode().splitlines()


async def made(folder: Path) -> None:
    """An installation in the folder, with its reserve."""
    async with installed(Settings(data_dir=folder)) as ctx:
        await keys.ensure_installation(ctx)
        await chores.sweep(ctx)


async def database_findings(folder: Path) -> str:
    found = await examine(Settings(data_dir=folder, engine_urls=""))
    return " ".join(finding.message for finding in found if finding.part == "database")


async def test_a_full_disk_does_not_keep_an_installation_from_starting(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", 12 * MIB) as folder:
        await made(folder)
        assert (folder / "reserve").exists()
        fill(folder)
        assert "its disk is full" in await database_findings(folder)
        [key, code] = said("keys list", data_dir=folder)
        assert key.startswith("key_") and code == "0"
        assert not (folder / "reserve").exists()


async def test_a_disk_that_is_full_without_a_reserve_is_said(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", 12 * MIB) as folder:
        await made(folder)
        (folder / "reserve").unlink()
        fill(folder)
        for end in said("keys list", "serve", "migrate", data_dir=folder):
            assert end == f"luthierd: the disk of {folder} is full: free space there, and start again"


async def test_a_damaged_database_is_said(tmp_path: Path) -> None:
    await made(tmp_path)
    with (tmp_path / "luthier.db").open("r+b") as stream:
        stream.write(b"x" * 1400)
    for end in said("keys list", "serve", "migrate", data_dir=tmp_path):
        assert end.startswith("luthierd: The database is damaged")
    assert "restore it from a backup" in await database_findings(tmp_path)


async def test_a_disk_that_is_mounted_read_only_is_said_and_no_owner_is_blamed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", 12 * MIB) as folder:
        await made(folder)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True, timeout=30)
        found = await examine(Settings(data_dir=folder, engine_urls=""))
    for part in ("disk", "database"):
        [message] = [finding.message for finding in found if finding.part == part and finding.state == "problem"]
        assert "mounted read-only" in message and "owner" not in message and "server" not in message


@pytest.mark.parametrize(("url", "word"), [("", "pipes"), ("sqlite+aiosqlite:///{}/else.db", "LUTHIER_POLL_SECONDS")])
async def test_doctor_says_how_workers_hear_of_work(url: str, word: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, engine_urls="", database_url=url.format(tmp_path))
    [message] = [finding.message for finding in await examine(settings) if finding.part == "bell"]
    assert word in message


async def test_another_organization_is_refused(tmp_path: Path) -> None:
    await made(tmp_path)
    [end] = said("serve", data_dir=tmp_path, organization="other")
    assert end.startswith("luthierd: LUTHIER_ORGANIZATION is 'other', but this installation is 'luthier'")


@pytest.mark.parametrize("folder", ["/etc/passwd", "/etc/passwd/below", "/proc/x"])
def test_a_data_folder_that_cannot_be_made_is_named(folder: str) -> None:
    for end in said("serve", "keys list", data_dir=folder):
        assert end.startswith(f"luthierd: LUTHIER_DATA_DIR: {folder} cannot be made (")


async def test_what_cannot_be_listened_on_names_the_setting(tmp_path: Path) -> None:
    await made(tmp_path)
    for end in said("serve", "up", data_dir=tmp_path, host="foo.invalid", port=28_431, engine_port=28_432):
        assert end.startswith("luthierd: cannot listen on foo.invalid:28431 (")
        assert end.endswith("set LUTHIER_HOST to an address of this machine")


@pytest.mark.parametrize("setting", ["engine_base", "bases"])
def test_a_base_that_the_catalogue_has_not_is_refused_by_the_settings_name(setting: str, tmp_path: Path) -> None:
    for end in said("serve", "keys list", data_dir=tmp_path, **{setting: "nope"}):
        assert end.startswith(f"luthierd: LUTHIER_{setting.upper()}: The catalogue has no base 'nope'")


def test_an_extension_that_is_missing_is_named(tmp_path: Path) -> None:
    end, finding, code = said("serve", "doctor", data_dir=tmp_path, extensions="nope")
    assert end.startswith("luthierd: LUTHIER_EXTENSIONS names 'nope'")
    assert "LUTHIER_EXTENSIONS names 'nope'" in finding
    assert code == "True"
