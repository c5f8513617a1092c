"""A folder that looks to a reader's commands like this repository, but for the demo's file: few rows train faster."""

import shutil
from pathlib import Path

from tests.given.running_service import ROOT

ROWS = 48  # of the demo's file: 36 steps in six epochs of batches of eight
FILE = Path("examples") / "demo" / "training.jsonl"


def clone(folder: Path) -> Path:
    """The folder, with the first rows of the file and the clients' examples."""
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    lines = (ROOT / FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / FILE).write_text("".join(lines[:ROWS]), encoding="utf-8")
    shutil.copytree(ROOT / "examples" / "clients", folder / "examples" / "clients", dirs_exist_ok=True)
    return folder
