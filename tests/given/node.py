"""Node and npm for tests of its official client: what the machine has, else Debian's packages where we may."""

import shutil
import subprocess
from pathlib import Path

from tests.given.debian import need

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "node"  # kept: npm asks the registry only for what is not there
INSTALL_SECONDS = 600


def installed_client() -> list[str]:
    """The command that runs examples/clients/client.mjs, with the packages that its package.json names."""
    need("npm", "nodejs", "npm", remedy="install Node 20 or newer with npm")
    shutil.copytree(ROOT / "examples" / "clients", FOLDER / "clients", dirs_exist_ok=True)
    (FOLDER / "demo").mkdir(exist_ok=True)
    shutil.copy(ROOT / "examples" / "demo" / "training.jsonl", FOLDER / "demo")
    _run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", cwd=FOLDER / "clients")
    return ["node", str(FOLDER / "clients" / "client.mjs")]


def _run(*command: str, cwd: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
