"""A check that was done, written into database and storage as a worker would have left it.

The database is used directly because tests of the API and of clients have no worker.
"""

import asyncio
import struct
from dataclasses import replace

from service.db import checks, files
from service.db.connection import Transaction
from service.domain import ids
from service.domain.check import (
    MASKS,
    MASKS_INDEX,
    RESULT,
    ROW,
    Advice,
    Check,
    CheckResult,
    Counts,
    Failure,
    FileReport,
    Finding,
    LengthBucket,
    Piece,
    Plan,
    RowMask,
    SequenceMask,
)
from service.domain.duration import Duration
from service.domain.file import Segment
from service.domain.memory import Memory, MemoryNeed, WorkerRoom
from service.domain.storage_keys import beside_dataset, dataset_key
from service.installation.context import Context
from service.operations.check_work import CHECK, HeldCheck
from service.operations.keys import Caller
from service.storage.base import one_chunk
from service.work import claims
from tests.given.stored_files import a_file

TEXTS = ("a", "b")  # of its rows
DATA = dataset_key("checked-1")
_COUNTS = Counts(2, 2, 2, 2, 2, 1, 256, [LengthBucket(0, 32, 2)])
_NEEDS = MemoryNeed.of(4_000_000, 1_000_000, 2_000_000)
_PLAN = Plan({"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0}, 0.001, 2, 2, 2, 2)


async def add_check(ctx: Context, caller: Caller) -> str:
    """A check of two rows; its id."""
    file = a_file(caller)
    async with ctx.database.transaction() as tx:
        await files.add(tx, file, [Segment(f"files/{file.id}/0", 3, "0" * 64)])
        id = await write_check(tx, caller.project_id, file.id)
    await store_masks(ctx)
    return id


async def write_check(tx: Transaction, project_id: str, file_id: str, id: str | None = None) -> str:
    """The row alone."""
    result = CheckResult(True, FileReport(True, None, 0, [], _COUNTS), None, _PLAN, [])
    check = Check(
        id=id or ids.check_id(),
        project_id=project_id,
        base="luthier-tiny",
        training_file=file_id,
        validation_file=None,
        objective="supervised",
        tuning={"type": "lora", "lora": {"r": 4}},
        hyperparameters={"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"},
        status="succeeded",
        created_at=1 << 33,
        conditions="0" * 64,
        finished_at=1 << 33,
        result=RESULT.dump_python(result, mode="json"),
        training_data=DATA,
    )
    await checks.add(tx, check)
    return check.id


async def do_check(ctx: Context, *problems: Finding) -> str:
    """The next check that anybody asks for, done without a base: with these problems, or valid. Its id."""
    async with asyncio.timeout(20):
        while (claim := await claims.claim(ctx, CHECK, "checker", list(ctx.catalogue.bases))) is None:
            await asyncio.sleep(0.02)
    held = HeldCheck(ctx, claim)
    if problems:
        failure = Failure("invalid_training_file", "It is invalid.", "training_file")
        report = FileReport(False, failure, len(problems), list(problems), None)
        await held.finish(CheckResult(False, report, None, None, []))
    else:
        known = {name: value for name, value in held.check.hyperparameters.items() if value != "auto"}
        plan = replace(_PLAN, hyperparameters={**_PLAN.hyperparameters, **known})
        duration = Duration(60, 30, 120, based_on=4, queue_position=0)
        advice = Advice("duplicates", "2 rows are equal.", "training_file", 2, [3, 4])
        report = FileReport(True, None, 0, [], _COUNTS)
        ready, starting = WorkerRoom("worker-1", "cuda", 2**36, 2**35, True), WorkerRoom("worker-2", *[None] * 4)
        memory = Memory(_NEEDS, [ready, starting])
        await held.finish(CheckResult(True, report, None, plan, [advice], duration=duration, memory=memory))
    return held.check.id


async def store_masks(ctx: Context) -> None:
    """What the check's rows say."""
    rows = [RowMask(line, [SequenceMask(1, 1, [Piece(text, True, 1.0, 1)])]) for line, text in enumerate(TEXTS, 1)]
    lines = [ROW.dump_json(row) + b"\n" for row in rows]
    places = [sum(len(line) for line in lines[:count]) for count in range(len(lines) + 1)]
    await ctx.storage.put(beside_dataset(DATA, MASKS), one_chunk(b"".join(lines)))
    await ctx.storage.put(beside_dataset(DATA, MASKS_INDEX), one_chunk(struct.pack(f"<{len(places)}q", *places)))
