"""Real chat templates to test with: TRL's wheel has those of 41 families. Not a server, but had like one.

`python -m tests.servers.chat_templates` fetches it from the package index into .cache/; nothing of it is committed.
"""

import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from zipfile import ZipFile

from tests.given.running_service import ROOT
from tests.servers import missing

RELEASE = "trl==1.16.0"
SHA256 = "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396"
WHEEL = ROOT / ".cache" / "chat_templates" / "trl-1.16.0-py3-none-any.whl"
FOLDER, SUFFIX = "trl/chat_templates/", ".jinja"
PATCHED = "_training"  # TRL's own changes; a base has the original
TIMEOUT_SECONDS = 300.0


def fetch() -> None:
    """Downloads the wheel if it is not there. Raises CalledProcessError, or ValueError for another file."""
    if not WHEEL.exists():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*download, RELEASE, "--dest", str(WHEEL.parent)], check=True, timeout=TIMEOUT_SECONDS)
    read_templates(WHEEL)


def real_templates() -> dict[str, str]:
    """Every family's template by its name, for tests; where they were not fetched, `missing`."""
    if not WHEEL.exists():
        missing("chat templates of TRL", "run python -m tests.servers.chat_templates")
    return read_templates(WHEEL)


@cache
def read_templates(wheel: Path) -> dict[str, str]:
    """The templates in the wheel by their names, in order. Raises ValueError for another file."""
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != SHA256:
        raise ValueError(f"{wheel} is not the wheel of {RELEASE}: delete it and fetch it again")
    with ZipFile(wheel) as archive:
        files = [Path(name) for name in archive.namelist() if name.startswith(FOLDER) and name.endswith(SUFFIX)]
        originals = sorted(file for file in files if not file.stem.endswith(PATCHED))
        return {file.stem: archive.read(str(file)).decode() for file in originals}


if __name__ == "__main__":
    fetch()
