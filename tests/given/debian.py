"""Programs of the machine that tests call: what is there, else Debian's packages where we may install them."""

import os
import shutil
import subprocess

from tests.servers import missing

INSTALL_SECONDS = 600


def need(program: str, *packages: str, remedy: str) -> None:
    """Returns when `program` can be called; else the test is skipped with `remedy`, in CI it fails."""
    if shutil.which(program) is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    if shutil.which(program) is None:
        missing(program, remedy)
