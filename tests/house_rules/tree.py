"""The files that the house rules look at. Every rule is a function from files or text to a list of what breaks it."""

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tracked_files() -> list[Path]:
    """What git tracks, and what it would if asked to add everything."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def python_files(*rooms: str) -> list[Path]:
    """Tracked Python files below the named top-level folders; of all of them when none is named."""
    files = [path for path in tracked_files() if path.suffix == ".py"]
    return [path for path in files if not rooms or path.relative_to(ROOT).parts[0] in rooms]


def texts(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The files that are text, with their text."""
    for path in files:
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
