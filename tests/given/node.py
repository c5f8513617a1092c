"""Node and npm for tests of its official client: what the machine has, else Debian's packages where we may."""

import subprocess
from pathlib import Path

from tests.given.cloned import clone
from tests.given.debian import need
from tests.given.running_service import ROOT

FOLDER = ROOT / ".cache" / "node"  # kept: npm asks the registry only for what is not there
INSTALL_SECONDS = 600


def installed_client() -> list[str]:
    """The command that runs examples/clients/client.mjs in a clone, with the packages that its package.json names."""
    need("npm", "nodejs", "npm", remedy="install Node 20 or newer with npm")
    clients = clone(FOLDER) / "examples" / "clients"
    _run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", cwd=clients)
    return ["node", str(clients / "client.mjs")]


def _run(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
