"""Frameworks for tests, in environments of their own: those that call /v1/responses, and those that tune models.

`python -m tests.servers.frameworks` installs the versions that tests/e2e/frameworks pins into .cache/frameworks, where
nothing of the project is; in a minute, and in none where they are there already.
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
LOCKED = {"python": "requirements.lock.txt", "llama-index": "llama_index.lock.txt"}  # environment -> its pins
PACKAGES = ("package.json", "package-lock.json")
PINS = (*LOCKED.values(), *PACKAGES)
REMEDY = "run python -m tests.servers.frameworks (needs Node 20 or newer with npm)"
INSTALL_SECONDS = 600.0
NODE = FOLDER / "node"
STAMP = FOLDER / ".installed"


def install() -> None:
    """Installs what is missing of the pinned versions. Raises CalledProcessError, or FileNotFoundError without npm."""
    if _is_installed():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    STAMP.unlink(missing_ok=True)
    for name, pins in LOCKED.items():
        _run(sys.executable, "-m", "venv", "--clear", str(FOLDER / name))
        locked = ["--no-deps", "--no-compile", "-r", str(SOURCE / pins)]
        _run(_python(name), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *locked)
    NODE.mkdir(exist_ok=True)
    for name in PACKAGES:
        shutil.copy(SOURCE / name, NODE)
    _run("npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", cwd=NODE)
    STAMP.write_text(_wanted(), encoding="utf-8")


def commands() -> dict[str, list[str]]:
    """The programs that ask and tune through frameworks; where these were not installed, `missing`."""
    if not _is_installed():
        missing("frameworks", REMEDY)
    shutil.copy(SOURCE / "ask.mjs", NODE)  # Node finds packages beside the program
    return {
        "python": [_python("python"), str(SOURCE / "ask.py")],
        "node": ["node", str(NODE / "ask.mjs")],
        "tune": [_python("python"), str(SOURCE / "tune.py")],
        "llama-index": [_python("llama-index"), str(SOURCE / "ask_llama_index.py")],
    }


def _python(environment: str) -> str:
    return str(FOLDER / environment / "bin" / "python")


def _is_installed() -> bool:
    return STAMP.exists() and STAMP.read_text(encoding="utf-8") == _wanted()


def _wanted() -> str:
    return hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in PINS)).hexdigest()


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=INSTALL_SECONDS)


if __name__ == "__main__":
    install()
