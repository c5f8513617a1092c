"""Every process refuses to start on a storage that cannot be used, and says in one line which setting to correct.

Each meets one such storage here. What is said of every other is shown where storage is checked: in
tests/contract/test_storage_s3.py.
"""

import asyncio
import os
from pathlib import Path

import pytest

from service.settings.settings import Settings
from tests.given.forked_process import start_process
from tests.given.installation import give_schema
from tests.given.running_service import free_ports
from tests.servers.radosgw import Radosgw

pytestmark = pytest.mark.slow
COMMANDS = {
    "serve": ["service", "serve"],
    "up": ["service", "up"],
    "train": ["workers", "train"],
    "engine": ["workers", "engine"],
}


def run(folder: Path, command: list[str], settings: dict[str, str]) -> tuple[int, str]:
    """How it ends, and what it says."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("LUTHIER_", "AWS_"))}
    port, engine_port = free_ports(2)
    ports = {"port": str(port), "engine_port": str(engine_port)}
    named = {f"LUTHIER_{name.upper()}": value for name, value in (settings | ports).items()}
    log = folder / "log"
    with log.open("wb") as stream:
        process = start_process(["-m", *command], others | named | {"LUTHIER_DATA_DIR": str(folder)}, stream)
    try:
        return process.wait(60), log.read_text(encoding="utf-8")
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("command", "changed", "setting"),
    [
        ("serve", {"storage_url": "file:///proc/nowhere"}, "STORAGE_URL"),
        ("up", {"storage_url": "s3://no-such-bucket"}, "STORAGE_URL"),
        ("train", {"storage_secret_access_key": "not-the-secret"}, "STORAGE_SECRET_ACCESS_KEY"),
        ("engine", {"storage_access_key_id": "nobody"}, "STORAGE_ACCESS_KEY_ID"),
    ],
)
def test_a_process_names_the_setting_to_mend(
    radosgw: Radosgw, tmp_path: Path, command: str, changed: dict[str, str], setting: str
) -> None:
    settings = radosgw.settings | {"storage_url": radosgw.new_bucket()} | changed
    asyncio.run(give_schema(Settings(data_dir=tmp_path)))
    code, said = run(tmp_path, COMMANDS[command], settings)
    program = "luthierd" if COMMANDS[command][0] == "service" else "luthier-worker"
    assert code == 1
    assert said.splitlines()[-1].startswith(f"{program}: LUTHIER_{setting}: ")
    assert "Traceback" not in said
    assert settings["storage_secret_access_key"] not in said
