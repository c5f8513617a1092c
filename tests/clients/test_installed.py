"""The package alone, in an empty environment of the oldest Python that it runs on and that this machine has."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house_rules.tree import ROOT
from tests.servers import missing

pytestmark = pytest.mark.slow
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
LIMIT_BYTES = 10_000_000
SECONDS = 300


def oldest_python() -> str:
    """The program; a name that leads to no Python, as of a version manager, is passed over."""
    for version in PYTHONS:
        program = shutil.which(f"python{version}")
        ask = ["-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        if program is not None:
            said = subprocess.run([program, *ask], capture_output=True, text=True, timeout=SECONDS, check=False)
            if said.stdout.strip() == version:
                return program
    return missing("a Python with venv", "install python3.9 or newer with its venv")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_it_installs_alone_into_an_empty_environment_and_is_small(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building writes beside the sources
    shutil.copytree(ROOT / "clients" / "python", source, ignore=shutil.ignore_patterns("*.egg-info", "build"))
    venv = tmp_path / "venv"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LUTHIER"))}

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), env=clean, timeout=SECONDS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(oldest_python(), "-m", "venv", venv)
    before = size(venv)
    run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile", source)
    assert size(venv) - before < LIMIT_BYTES
    assert "luthier tune training.jsonl" in run(venv / "bin" / "luthier", "--help")
    used = "import luthier; luthier.Luthier, luthier.AsyncLuthier, luthier.models; print('read')"
    assert run(venv / "bin" / "python", "-c", used) == "read\n"
    told = run(venv / "bin" / "python", "-m", "pip", "list", "--format=freeze")
    assert not {"torch", "pydantic", "openai", "luthier=="} & {line.split("==")[0].lower() for line in told.split()}
