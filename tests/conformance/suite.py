"""Fetches openai-python's sdist, whose `tests/` are the suite, and makes the environment that they run in.

Both are kept in `.cache/` of the repository; a second call finds them there. Needs pip and an index, nothing else.
`python -m tests.conformance.suite` fetches without running.
"""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "3.52.0"
SHA256 = "258a4fec3e40b412c58672526ed33f20738c2e4ea27601792e73843af62466af"
REPOSITORY = Path(__file__).parents[2]
CACHE = REPOSITORY / ".cache" / "conformance" / VERSION
SOURCE = CACHE / f"openai-{VERSION}"
PYTHON = CACHE / "venv" / "bin" / "python"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def fetch() -> Path:
    """The folder of the unpacked sdist, with an environment for it at PYTHON. Raises on the first thing that fails."""
    if not SOURCE.is_dir():
        _unpack(_download())
    stamp = CACHE / "venv" / ".installed"
    if not stamp.exists() or stamp.read_bytes() != REQUIREMENTS.read_bytes():
        _run(sys.executable, "-m", "venv", "--clear", str(CACHE / "venv"))
        _run(str(PYTHON), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS))
        stamp.write_bytes(REQUIREMENTS.read_bytes())
    return SOURCE


def _download() -> Path:
    archive = CACHE / f"openai-{VERSION}.tar.gz"
    wanted = ["--no-deps", "--no-binary", "openai", "--dest", str(CACHE), f"openai=={VERSION}"]
    _run(sys.executable, "-m", "pip", "download", "--quiet", *wanted)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{archive} is not the sdist that this suite was written for: sha256 {found}")
    return archive


def _unpack(archive: Path) -> None:
    """Unpacks beside the final place and renames, so that an interrupted call leaves no half suite."""
    partial = CACHE / "partial"
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    (partial / SOURCE.name).rename(SOURCE)
    partial.rmdir()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=600)


if __name__ == "__main__":
    fetch()
