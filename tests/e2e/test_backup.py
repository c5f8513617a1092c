"""A backup made with the documented commands while everything runs, and an installation made of it elsewhere.

The commands are those of docs/operating/recover.md, line by line, in a shell.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from service.installation.context import Context
from service.installation.create import create_context
from service.operations import lookups
from service.operations.orphans import OrphanSweep
from service.settings.settings import Settings
from tests.given.journey import rows, upload
from tests.given.running_service import ROOT, RunningService, kill, wait_for, wait_for_status, write_catalogue
from tests.given.tiny_models import make_tiny_base
from tests.servers import missing
from tests.servers.postgres import Postgres
from tests.servers.radosgw import Radosgw
from workers.files.artifacts import fetch_artifact

pytestmark = pytest.mark.slow
STEPS = 400  # one row each: long enough to outlast the dump
SNAPSHOT_STEPS = 100
PAUSE_SECONDS = 0.2  # between two looks at a job, which cost more than a step of it
Found = TypeVar("Found")
TRAINING, OTHER = rows(STEPS, seed=1), rows(24, seed=2)


@dataclass(frozen=True)
class Sites:
    """An installation, the empty place where it is restored, and what the operator's shell has in both."""

    heading: str
    original: RunningService
    restored: RunningService
    shell: dict[str, str]

    def run(self, service: RunningService, command: str) -> None:
        """One documented command, with the settings of `service` in the environment."""
        settings = {"LUTHIER_DATA_DIR": str(service.folder), **service.environment}
        environment = os.environ | settings | self.shell
        shell = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.fixture(params=["embedded", "servers"])
def sites(request: pytest.FixtureRequest, tmp_path: Path) -> Sites:
    """SQLite and a folder; PostgreSQL and S3."""
    common = {
        "LUTHIER_CATALOGUE": str(write_catalogue(tmp_path / "bases.toml", make_tiny_base(tmp_path / "base"))),
        "LUTHIER_SNAPSHOT_STEPS": str(SNAPSHOT_STEPS),
        "LUTHIER_TRAINER_THREADS": "1",
        "LUTHIER_ENGINE_THREADS": "1",
    }
    places: list[dict[str, str]] = [{}, {}]
    shell = {"BACKUP": str(tmp_path / "backup"), "PATH": f"{luthierd(tmp_path / 'bin')}:{os.environ['PATH']}"}
    if request.param == "servers":
        require("aws")
        postgres: Postgres = request.getfixturevalue("postgres")
        radosgw: Radosgw = request.getfixturevalue("radosgw")
        reach = {f"LUTHIER_{name.upper()}": value for name, value in radosgw.settings.items()}
        for migrated, place in zip([True, False], places, strict=True):
            place |= reach | {
                "LUTHIER_DATABASE_URL": postgres.new_database(migrated=migrated),
                "LUTHIER_STORAGE_URL": radosgw.new_bucket(),
            }
        shell["PATH"] = f"{postgres.programs}:{shell['PATH']}"
        shell |= {
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": radosgw.access_key,
            "AWS_SECRET_ACCESS_KEY": radosgw.secret_key,
        }
    else:
        require("sqlite3")
    (tmp_path / "backup").mkdir()
    services = [RunningService(tmp_path / f"site-{number}", common | place) for number, place in enumerate(places)]
    return Sites("PostgreSQL and S3" if request.param == "servers" else "SQLite and a folder", *services, shell)


def test_an_installation_made_of_a_backup_goes_on_where_the_backup_was_made(sites: Sites, tmp_path: Path) -> None:
    back_up, restore = documented(sites.heading)
    with started(sites.original) as original:
        client, key = original.client(), original.key
        finished = wait_for_status(
            client, create(client, upload(client, OTHER), 1).id, "succeeded", pause=PAUSE_SECONDS
        )
        said = answer(client, finished)
        training_file = upload(client, TRAINING)
        id = create(client, training_file, 1).id
        wait_for(lambda: bool(seen(original, lambda ctx: lookups.find_snapshots(ctx, id))), 120, "a snapshot")
        dump, *copy = back_up
        sites.run(original, dump)
        with frozen(original, "workers.trainer"):  # so that the copy, however slow, is of a job that runs
            assert client.fine_tuning.jobs.retrieve(id).status == "running", "the dump took longer than the training"
            newer_file = upload(client, OTHER, "newer.jsonl")  # its bytes are in the copy, its row is not in the dump
            for command in copy:
                sites.run(original, command)
        undisturbed = wait_for_status(client, id, "succeeded", pause=PAUSE_SECONDS)
        weights = seen(original, lambda ctx: weights_of(ctx, undisturbed, tmp_path / "0"))
        original.stop()

    for command in restore:
        sites.run(sites.restored, command)
    newest, *_ = seen(sites.restored, lambda ctx: lookups.find_snapshots(ctx, id))
    before, after = (seen(sites.restored, look) for look in (stored, swept))
    assert {key.split("/")[1] for key in before - after} == {newer_file}, "the sweep takes what is newer than the dump"
    with started(sites.restored) as restored:
        client = restored.client(key)  # the key of before is a key still
        assert client.files.content(training_file).read() == TRAINING
        assert answer(client, finished) == said
        job = wait_for_status(client, id, "succeeded", pause=PAUSE_SECONDS)
        assert newest.step < STEPS
        assert re.search(rf"job\.continued .*job_id={id} step={newest.step}\b", restored.log)
        assert seen(restored, lambda ctx: weights_of(ctx, job, tmp_path / "1")) == weights
        assert answer(client, job)
        restored.stop()
    seen(sites.restored, swept)
    for kept in (finished, job):
        seen(sites.restored, lambda ctx, kept=kept: weights_of(ctx, kept, tmp_path / "2"))  # type: ignore[misc]


def documented(heading: str) -> list[list[str]]:
    """The commands to back up and those to restore, as the page has them below `heading`."""
    page = (ROOT / "docs" / "operating" / "recover.md").read_text(encoding="utf-8")
    section = re.split(r"^##+ ", page.partition(f"### {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2, heading
    return [block.strip().splitlines() for block in blocks]


def luthierd(folder: Path) -> Path:
    """A folder with the command `luthierd` of this very tree."""
    folder.mkdir()
    command = folder / "luthierd"
    command.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m service "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return folder


def require(program: str) -> None:
    if shutil.which(program) is None:
        missing(program, "run tests/servers/install_radosgw.sh as root")


@contextmanager
def started(service: RunningService) -> Iterator[RunningService]:
    try:
        service.start()
        yield service
    except BaseException:
        print(service.log[-8000:])  # noqa: T201
        raise
    finally:
        service.end()


@contextmanager
def frozen(service: RunningService, *words: str) -> Iterator[None]:
    """Inside, the processes of the service whose command lines hold these words stand still."""
    pids = service.processes(*words)
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)


def create(client: OpenAI, training_file: str, epochs: int) -> FineTuningJob:
    hyperparameters = {"n_epochs": epochs, "batch_size": 1}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return client.fine_tuning.jobs.create(model="tiny", training_file=training_file, seed=7, method=method)  # type: ignore[arg-type]


def answer(client: OpenAI, job: FineTuningJob) -> str | None:
    """What the job's model says, always the same."""
    model = str(job.fine_tuned_model)
    question = [{"role": "user", "content": "0 red?"}]
    said = client.chat.completions.create(model=model, messages=question, max_tokens=8, temperature=0)  # type: ignore[arg-type]
    return said.choices[0].message.content


def seen(service: RunningService, look: Callable[[Context], Awaitable[Found]]) -> Found:
    """What a look behind the API finds."""

    async def run() -> Found:
        async with context(service) as ctx:
            return await look(ctx)

    return asyncio.run(run())


@asynccontextmanager
async def context(service: RunningService) -> AsyncIterator[Context]:
    names = {name.removeprefix("LUTHIER_").lower(): value for name, value in service.environment.items()}
    ctx = create_context(Settings(**{**names, "data_dir": service.folder, "orphan_age_seconds": 0}))  # type: ignore[arg-type]
    try:
        yield ctx
    finally:
        await ctx.close()


async def stored(ctx: Context) -> set[str]:
    return {found.key async for found in ctx.storage.list("")}


async def swept(ctx: Context) -> set[str]:
    """What is left of the store when all that no row names is gone, however young."""
    await OrphanSweep(ctx).sweep()
    return await stored(ctx)


async def weights_of(ctx: Context, job: FineTuningJob, cache: Path) -> bytes:
    """The job's weights, every byte checked against the manifest."""
    assert job.fine_tuned_model is not None
    artifact = await fetch_artifact(ctx.storage, job.fine_tuned_model, cache)
    return (artifact / "adapter_model.safetensors").read_bytes()
