"""Frameworks that call /v1/responses, for tests, in environments of their own: four of Python, one of Node.

`python -m tests.servers.frameworks` installs the versions that tests/e2e/frameworks pins into .cache/frameworks, where
nothing of the project is; in half a minute, and in none where they are there already.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.given.running_service import ROOT
from tests.servers import missing

SOURCE = ROOT / "tests" / "e2e" / "frameworks"
FOLDER = ROOT / ".cache" / "frameworks"
PINS = ("requirements.lock.txt", "package.json", "package-lock.json")
REMEDY = "run python -m tests.servers.frameworks (needs Node 20 or newer with npm)"
INSTALL_SECONDS = 600.0
PYTHON = FOLDER / "python" / "bin" / "python"
NODE = FOLDER / "node"
STAMP = FOLDER / ".installed"


def install() -> None:
    """Installs what is missing of the pinned versions. Raises CalledProcessError, or FileNotFoundError without npm."""
    if _is_installed():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    STAMP.unlink(missing_ok=True)
    _run(sys.executable, "-m", "venv", "--clear", str(FOLDER / "python"))
    locked = ["--no-deps", "--no-compile", "-r", str(SOURCE / PINS[0])]
    _run(str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *locked)
    NODE.mkdir(exist_ok=True)
    for name in PINS[1:]:
        shutil.copy(SOURCE / name, NODE)
    _run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=NODE)
    STAMP.write_text(_wanted(), encoding="utf-8")


def commands() -> dict[str, list[str]]:
    """The program that asks through each language's frameworks; where they were not installed, `missing`."""
    if not _is_installed():
        missing("frameworks of /v1/responses", REMEDY)
    shutil.copy(SOURCE / "ask.mjs", NODE)  # Node finds packages beside the program
    return {"python": [str(PYTHON), str(SOURCE / "ask.py")], "node": ["node", str(NODE / "ask.mjs")]}


def _is_installed() -> bool:
    return STAMP.exists() and STAMP.read_text(encoding="utf-8") == _wanted()


def _wanted() -> str:
    return hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in PINS)).hexdigest()


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=INSTALL_SECONDS)


if __name__ == "__main__":
    install()
