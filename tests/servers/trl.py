"""Hugging Face's TRL, whose losses ours are compared with, in an environment of its own.

`python -m tests.servers.trl` installs the versions that tests/unit/objectives/oracles pins into .cache/trl, where
nothing of the project is; in a minute, and in none where they are there already.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.given.running_service import ROOT
from tests.servers import missing

SOURCE = ROOT / "tests" / "unit" / "objectives" / "oracles"
LOCK = SOURCE / "requirements.lock.txt"
FOLDER = ROOT / ".cache" / "trl"
PYTHON = FOLDER / "python" / "bin" / "python"
STAMP = FOLDER / ".installed"
TORCH = "torch==2.13.0"  # first and with what it needs, which differs between builds
REMEDY = "run python -m tests.servers.trl"
INSTALL_SECONDS = 600.0
RUN_SECONDS = 300.0


def install() -> None:
    """Installs what is missing of the pinned versions. Raises CalledProcessError."""
    if _is_installed():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    STAMP.unlink(missing_ok=True)
    _run(sys.executable, "-m", "venv", "--clear", str(FOLDER / "python"))
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    _run(*pip, TORCH)
    _run(*pip, "--no-deps", "-r", str(LOCK))
    STAMP.write_text(_wanted(), encoding="utf-8")


def run_losses(given: Path, found: Path) -> None:
    """Runs oracles/losses.py in that environment; where it was not installed, `missing`. Raises CalledProcessError."""
    if not _is_installed():
        missing("TRL", REMEDY)
    _run(str(PYTHON), str(SOURCE / "losses.py"), str(given), str(found), seconds=RUN_SECONDS)


def _is_installed() -> bool:
    return STAMP.exists() and STAMP.read_text(encoding="utf-8") == _wanted()


def _wanted() -> str:
    return hashlib.sha256(TORCH.encode() + LOCK.read_bytes()).hexdigest()


def _run(*command: str, seconds: float = INSTALL_SECONDS) -> None:
    subprocess.run(command, cwd=ROOT, check=True, timeout=seconds)


if __name__ == "__main__":
    install()
