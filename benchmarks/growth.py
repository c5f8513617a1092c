"""What a large installation costs each operation: an empty one and a full one, in turns, in one process.

    python -m benchmarks.growth [--minutes 10] [--jobs 10000] [--events 1000000] [--models 1000] [--files 10000]

writes benchmarks/growth.txt and .svg. The full one has so many jobs (a fifth of them wait for a slot), events of jobs,
tuned models and files, all of one project, on SQLite. An operation is called through `service.operations`, as routes
and workers do, without HTTP; figures are milliseconds of processor time of this process.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Table, insert

from benchmarks.bars import Spread, draw, machine
from service.db.tables import files as file_rows
from service.db.tables import job_events, job_metadata, models, work
from service.db.tables import jobs as job_rows
from service.domain import event as wording
from service.domain import ids
from service.domain.job import Job
from service.installation.context import Context
from service.operations import counts, files, jobs, keys, sweeps
from service.operations import models as model_operations
from service.operations.keys import Caller
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.installation import installed
from tests.given.stored_jobs import add_job
from tests.given.stored_models import add_model
from tests.given.work import claim_training

OUTPUT = Path(__file__).parent
BATCH = 10_000
GOAL = 1.5
NEEDLE = "ft:luthier-tiny:luthier::NEEDLE00"


@dataclass(frozen=True)
class Size:
    """Of the full installation."""

    jobs: int = 10_000
    events: int = 1_000_000
    models: int = 1_000
    files: int = 10_000


@dataclass
class Installation:
    """One installation, and what of it the operations concern."""

    ctx: Context
    caller: Caller
    key: str
    file_id: str = ""
    ended_id: str = ""
    waiting_id: str = ""


Operation = Callable[[Installation], Awaitable[object]]


async def main(size: Size, deadline: float, rounds: int, output: Path) -> None:
    async with installation() as empty, installation() as full:
        await fill(full, size)
        found: dict[str, dict[str, list[float]]] = {name: {"empty": [], "full": []} for name in OPERATIONS}
        for turn in range(rounds):
            if turn and time.monotonic() > deadline:
                break
            for name, operation in OPERATIONS.items():
                for kind, one in (("empty", empty), ("full", full)) if turn % 2 else (("full", full), ("empty", empty)):
                    found[name][kind].append(await milliseconds(operation, one))
        report(
            size, {name: {kind: Spread(values) for kind, values in of.items()} for name, of in found.items()}, output
        )


async def milliseconds(operation: Operation, one: Installation) -> float:
    began = time.process_time()
    await operation(one)
    return (time.process_time() - began) * 1e3


def report(size: Size, found: dict[str, dict[str, Spread]], output: Path) -> None:
    lines = [
        f"{size.jobs:,} jobs ({size.jobs // 5:,} waiting), {size.events:,} events, {size.models:,} models, "
        f"{size.files:,} files; SQLite; {len(next(iter(found.values()))['full'].values)} rounds",
        machine(["sqlalchemy", "aiosqlite"]),
        "",
        f"{'CPU ms: median (least-most)':42}{'empty':>24}{'full':>24}{'ratio':>8}",
    ]
    for name, of in found.items():
        ratio = of["full"].median / of["empty"].median
        mark = "" if ratio <= GOAL else "  above the goal"
        lines.append(f"{name:42}{of['empty']!s:>24}{of['full']!s:>24}{ratio:8.2f}{mark}")
    text = "\n".join(lines) + "\n"
    (output / "growth.txt").write_text(text, encoding="utf-8")
    print(text, end="")
    draw(output / "growth.svg", "Operations of an empty and of a full installation", "CPU ms", found)


@asynccontextmanager
async def installation() -> AsyncIterator[Installation]:
    """With a file, a job that has ended, one that waits, and a tuned model."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), project_files=10**6, project_jobs=10**6, project_bytes=10**12)
        async with installed(settings) as ctx:
            key = await keys.ensure_installation(ctx)
            assert key is not None
            caller = await keys.authenticate(ctx, key)
            one = Installation(ctx, caller, key, (await uploaded(ctx, caller)))
            one.ended_id = (await add_job(ctx, caller, "succeeded")).id
            one.waiting_id = (await add_job(ctx, caller, "queued")).id
            await add_model(ctx, caller, one.ended_id, NEEDLE, kind="final")
            yield one


async def uploaded(ctx: Context, caller: Caller) -> str:
    async with files.incoming(ctx) as incoming:
        await incoming.store(one_chunk(b'{"messages": []}\n'))
        return (await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))).id


async def fill(one: Installation, size: Size) -> None:
    """Written into the database: made by operations, so many rows would take hours."""
    ctx, project = one.ctx, one.caller.project_id
    ended = (await jobs.retrieve(ctx, one.caller, one.ended_id)).job
    names = [ids.job_id() for _ in range(size.jobs)]
    waiting = size.jobs // 5
    rows = (_job(ended, id, "queued" if number < waiting else "succeeded") for number, id in enumerate(names))
    await store(ctx, job_rows, rows)
    await store(ctx, work, (_work(ended, id) for id in names[:waiting]))
    pairs = ({"job_sequence": n, "key": "team", "value": "a", "project_id": project} for n in range(3, size.jobs + 3))
    await store(ctx, job_metadata, pairs)
    per_job = max(1, size.events // size.jobs)
    await store(ctx, job_events, (event for id in names for event in _events(id, per_job)))
    await store(ctx, models, (_model(one.caller, one.ended_id, number) for number in range(size.models)))
    file = await files.retrieve(ctx, one.caller, one.file_id)
    row = {field.name: getattr(file, field.name) for field in fields(file)}
    await store(ctx, file_rows, ({**row, "id": ids.file_id()} for _ in range(size.files)))


async def store(ctx: Context, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    while batch := list(islice(rows, BATCH)):
        async with ctx.database.transaction() as tx:
            await tx.connection.execute(insert(table), batch)


def _job(like: Job, id: str, status: str) -> dict[str, Any]:
    row = {field.name: getattr(like, field.name) for field in fields(Job)}
    swept = None if status == "queued" else 2
    return {**row, "id": id, "status": status, "metadata": {"team": "a"}, "swept_at": swept, "finished_at": swept}


def _work(like: Job, id: str) -> dict[str, Any]:
    return {
        "id": ids.work_id(), "kind": "train", "subject_id": id, "project_id": like.project_id, "base": like.base,
    }  # fmt: skip


def _events(job_id: str, count: int) -> Iterator[dict[str, Any]]:
    for step in range(1, count + 1):
        event = wording.step({"step": step, "total_steps": count, "train_loss": 1 / step})
        yield {
            "job_id": job_id, "sequence": step, "id": ids.event_id(), "created_at": 1, "level": event.level,
            "type": event.type, "message": event.message, "data": dict(event.data), "key": event.key,
        }  # fmt: skip


def _model(caller: Caller, job_id: str, number: int) -> dict[str, Any]:
    return {
        "name": f"ft:luthier-tiny:luthier::GROWN{number:04}", "project_id": caller.project_id, "job_id": job_id,
        "base": "luthier-tiny", "kind": "final", "step": 1, "tuning": "lora", "created_at": 1,
    }  # fmt: skip


async def _create(one: Installation) -> None:
    job = await jobs.create(one.ctx, one.caller, jobs.NewJob("luthier-tiny", one.file_id, seed=1))
    await jobs.cancel(one.ctx, one.caller, job.job.id)


async def _upload_and_delete(one: Installation) -> None:
    await files.delete(one.ctx, one.caller, await uploaded(one.ctx, one.caller))


async def _claim(one: Installation) -> None:
    held = await claim_training(one.ctx, "worker")
    assert held is not None
    await held.release()


OPERATIONS: dict[str, Operation] = {
    "authenticate": lambda one: keys.authenticate(one.ctx, one.key),
    "create a job, cancel it": _create,
    "retrieve an ended job": lambda one: jobs.retrieve(one.ctx, one.caller, one.ended_id),
    "retrieve a waiting job": lambda one: jobs.retrieve(one.ctx, one.caller, one.waiting_id),
    "list 20 jobs": lambda one: jobs.page(one.ctx, one.caller, after=None, limit=20),
    "list jobs by metadata that none has": lambda one: jobs.page(
        one.ctx, one.caller, after=None, limit=20, metadata={"team": "nobody"}
    ),
    "list jobs without metadata": lambda one: jobs.page(one.ctx, one.caller, after=None, limit=1, metadata={}),
    "events of a job": lambda one: jobs.event_page(one.ctx, one.caller, one.ended_id, after=None, limit=20),
    "messages of a job": lambda one: jobs.messages(one.ctx, one.caller, one.ended_id, 20),
    "resolve a tuned model": lambda one: model_operations.retrieve(one.ctx, one.caller, NEEDLE),
    "upload a file, delete it": _upload_and_delete,
    "list 1 file": lambda one: files.page(one.ctx, one.caller, purpose=None, after=None, limit=1, ascending=False),
    "claim for training, give back": _claim,
    "counts of /metrics and luthierd doctor": lambda one: counts.count_jobs(one.ctx),
    "sweeps": lambda one: _sweeps(one.ctx),
}


async def _sweeps(ctx: Context) -> None:
    await sweeps.unneeded_files(ctx, 10)
    await sweeps.dead_models(ctx, 10)
    await sweeps.ended_jobs(ctx, 10)
    await sweeps.ended_uploads(ctx, 10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    for field in fields(Size):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    arguments = parser.parse_args()
    wanted = Size(**{field.name: getattr(arguments, field.name) for field in fields(Size)})
    until = time.monotonic() + 60 * arguments.minutes
    asyncio.run(main(wanted, until, arguments.rounds, arguments.output))
