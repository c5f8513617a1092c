"""The package alone, in an empty environment of the oldest Python that it runs on and that this machine has."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from luthier import AsyncLuthier

from service.installation.context import Context
from tests.given.command import Called, called
from tests.given.files_by_http import ROWS
from tests.given.scripted_engine import ScriptedEngine, answers
from tests.given.stored_checks import do_check
from tests.given.stored_jobs import tell
from tests.house_rules.tree import ROOT
from tests.servers import missing

pytestmark = pytest.mark.slow
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
LIMIT_BYTES = 10_000_000
SECONDS = 300
USES = "import luthier; luthier.Luthier, luthier.AsyncLuthier, luthier.models; print('read')"
UNREAD = """
from typing import ForwardRef, Literal, get_args, get_origin, get_type_hints
from luthier.generated import models

def unread(hint):
    if get_origin(hint) is Literal:
        return False
    return isinstance(hint, (str, ForwardRef)) or any(map(unread, get_args(hint)))

print([f"{name}.{field}" for name in models.__all__
       for field, hint in get_type_hints(getattr(models, name)).items() if unread(hint)])
"""
CHAT = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"luthier-tiny","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Good day"},"finish_reason":"stop"}]}'
)


def oldest_python() -> str:
    """The program, on the path or of pyenv; a name that leads to no Python is passed over."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in PYTHONS:
        programs = [shutil.which(f"python{version}"), *sorted(versions.glob(f"{version}.*/bin/python{version}"))]
        ask = ["-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        for program in filter(None, programs):
            said = subprocess.run([program, *ask], capture_output=True, text=True, timeout=SECONDS, check=False)
            if said.stdout.strip() == version:
                return str(program)
    return missing("a Python with venv", "install python3.9 or newer with its venv")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LUTHIER"))}


def run(*command: object) -> str:
    done = subprocess.run(
        list(map(str, command)), env=clean(), timeout=SECONDS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Where programs of an environment lie that has the package, and the bytes that this brought."""
    folder = tmp_path_factory.mktemp("installed")
    source, venv = folder / "source", folder / "venv"  # building writes beside the sources
    shutil.copytree(ROOT / "clients" / "python", source, ignore=shutil.ignore_patterns("*.egg-info", "build"))
    run(oldest_python(), "-m", "venv", venv)
    before = size(venv)
    run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile", source)
    return venv / "bin", size(venv) - before


def test_it_installs_alone_into_an_empty_environment_and_is_small(empty: tuple[Path, int]) -> None:
    programs, length = empty
    assert length < LIMIT_BYTES
    assert "luthier tune training.jsonl" in run(programs / "luthier", "--help")
    assert run(programs / "python", "-c", USES) == "read\n"
    told = run(programs / "python", "-m", "pip", "list", "--format=freeze")
    assert not {"torch", "pydantic", "openai", "luthier=="} & {line.split("==")[0].lower() for line in told.split()}


def test_it_finds_the_class_of_every_field(empty: tuple[Path, int]) -> None:
    assert run(empty[0] / "python", "-c", UNREAD) == "[]\n"


async def test_it_checks_tunes_lists_and_chats(
    empty: tuple[Path, int], ctx: Context, sdk: AsyncLuthier, engine: ScriptedEngine, configured: str, tmp_path: Path
) -> None:
    """Objects within objects, such as a check's counts, are read by it."""
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(ROWS)
    kept = {name: os.environ[name] for name in ("LUTHIER_URL", "LUTHIER_API_KEY")}

    async def installed(*arguments: str) -> Called:
        return await called(*arguments, program=(empty[0] / "luthier",), environment=clean() | kept)

    tuning = asyncio.create_task(installed("tune", str(rows), "--base", "luthier-tiny", "-y", "-o", "id"))
    await do_check(ctx)
    async with asyncio.timeout(SECONDS):
        while not (jobs := (await sdk.fine_tuning.jobs.list()).data):
            assert not tuning.done(), tuning.result()
            await asyncio.sleep(0.02)
        await tell(ctx, jobs[0].id, 1)
        await sdk.fine_tuning.jobs.cancel(jobs[0].id)
        tuned = await tuning
    assert (tuned.code, tuned.stdout) == (4, f"{jobs[0].id}\n"), tuned.stderr
    assert "2 rows are equal." in tuned.stderr and "warn: 1" in tuned.stderr
    checking = asyncio.create_task(installed("check", str(rows), "--base", "luthier-tiny", "-o", "json"))
    await do_check(ctx)
    assert (await checking).code == 0, checking.result().stderr
    engine.script = answers(CHAT)
    sides = await installed("chat", "luthier-tiny", "--compare", "luthier-tiny", "-m", "Hello")
    assert sides.code == 0 and "Good day" in sides.stdout, sides.stderr
    for command in (("jobs", "ls"), ("jobs", "show", jobs[0].id), ("compare", jobs[0].id, jobs[0].id), ("files", "ls")):
        shown = await installed(*command)
        assert shown.code == 0, shown.stderr
