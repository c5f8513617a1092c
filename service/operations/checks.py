"""Checks as their users see them: create, read, look at the mask of rows, delete. The worker's side is `check_work`.

A check takes what a job takes and is refused for the same reasons; after the commit, workers are notified. It is kept
for a while, and a job may name it instead of being validated again.
"""

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from service.db import checks, work
from service.db.connection import Transaction
from service.domain import ids
from service.domain.check import (
    INDEX_BYTES,
    MASKS,
    MASKS_INDEX,
    RESULT,
    ROW,
    Check,
    CheckResult,
    FileParam,
    FileReport,
    RowMask,
)
from service.domain.errors import IllegalTransition, InvalidRequest, NotFound
from service.domain.storage_keys import beside_dataset
from service.installation.context import Context
from service.operations import jobs, quotas
from service.operations.check_work import CHECK
from service.operations.checked import conditions
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.operations.paging import Page, cut
from service.storage import ObjectMissing

KEPT = 1000  # checks of one project; older ones go
ROWS_LIMIT = 100
PAGE_BYTES = 4 * 1024 * 1024  # of rows at once; a longer row comes alone
MASKS_UNKNOWN = "The masks of this check's rows are not stored any more; please check the files again."


@dataclass(frozen=True)
class RowPage:
    """The masks of some rows in their order, of `total` in the file."""

    rows: Sequence[RowMask]
    total: int
    has_more: bool


async def create(ctx: Context, caller: Caller, new: NewJob) -> Check:
    """Writes the check, then notifies workers. Raises InvalidRequest where a job would, and QuotaExceeded."""
    async with ctx.database.transaction() as tx:
        found = await jobs.resolve(ctx, tx, caller, new)
        await quotas.check_check(ctx, tx, caller)
        origin = found.origin
        check = Check(
            id=ids.check_id(),
            project_id=caller.project_id,
            base=origin.base.id,
            alias=origin.alias,
            parent_model=origin.parent,
            training_file=new.training_file,
            validation_file=new.validation_file,
            objective=new.objective,
            tuning=found.stored_tuning,
            hyperparameters=new.hyperparameters.model_dump(),
            safeguards=new.safeguards.stored(),
            status="queued",
            created_at=int(time.time()),
            conditions=conditions(ctx.settings, origin.base),
        )
        await checks.add(tx, check)
        await work.add(tx, CHECK.name, check.id, check.project_id, check.base)
        await checks.remove(tx, await checks.beyond(tx, caller.project_id, KEPT, KEPT))
        tx.after_commit(lambda: ctx.queue.put(check.id))
    return check


async def retrieve(ctx: Context, caller: Caller, id: str) -> Check:
    """One check with its result. Raises NotFound, for another project's too."""
    async with ctx.database.reading() as tx:
        return await _find(tx, caller, id)


async def page(ctx: Context, caller: Caller, *, after: str | None, limit: int) -> Page[Check]:
    """Checks without their results, newest first, older than `after`."""
    async with ctx.database.reading() as tx:
        return cut(await checks.page(tx, caller.project_id, after, limit + 1), limit)


async def newest_of(ctx: Context, caller: Caller, file_id: str) -> str | None:
    """The id of the newest check of the project in which this is the training file; None where there is none."""
    async with ctx.database.reading() as tx:
        return await checks.newest_of(tx, caller.project_id, file_id)


async def delete(ctx: Context, caller: Caller, id: str) -> None:
    """Deletes the check, and ends it where it has not ended. Raises NotFound."""
    async with ctx.database.transaction() as tx:
        held_by = await work.lock(tx, [id])
        await _find(tx, caller, id, lock=True)
        await work.remove(tx, [held.id for held in held_by])
        await checks.remove(tx, [id])
        tx.after_commit(lambda: ctx.queue.put(id))


async def rows(
    ctx: Context, caller: Caller, id: str, *, start: int = 0, limit: int = 20, param: FileParam = "training_file"
) -> RowPage:
    """What is trained of at most `limit` rows of a file, from row `start` (0 is the first) on.

    There may be fewer where rows are long, but one at least. Raises NotFound; InvalidRequest for a file that has no
    rows to show, IllegalTransition for a check that has not ended.
    """
    check = await retrieve(ctx, caller, id)
    report, object_key = _checked_file(check, param), _data(check, param)
    assert report.counts is not None and object_key is not None, "a valid file has been counted and stored"
    total = report.counts.rows
    wanted = max(0, min(limit, ROWS_LIMIT, total - start))
    if wanted == 0:
        return RowPage([], total, has_more=limit > 0 and start < total)
    try:
        found = await _read_rows(ctx, object_key, start, wanted)
    except ObjectMissing as error:
        raise InvalidRequest(MASKS_UNKNOWN, param="check_id", code="rows_unavailable") from error
    return RowPage(found, total, has_more=start + len(found) < total)


async def expire(ctx: Context, limit: int) -> None:
    """Removes checks that are older than they are kept."""
    async with ctx.database.transaction() as tx:
        old = await checks.expired(tx, ctx.settings.check_life_seconds, limit)
        await work.remove(tx, [held.id for held in await work.lock(tx, old)])
        await checks.remove(tx, old)


def result_of(check: Check) -> CheckResult | None:
    """The result, typed; None before the end, and in pages."""
    return None if check.result is None else RESULT.validate_python(check.result)


async def _find(tx: Transaction, caller: Caller, id: str, *, lock: bool = False) -> Check:
    check = await checks.find(tx, caller.project_id, id, lock=lock)
    if check is None:
        raise NotFound(f"Could not find check: {id}", param="check_id", code="check_not_found")
    return check


def _checked_file(check: Check, param: FileParam) -> FileReport:
    """What was found about the valid file. Raises InvalidRequest or IllegalTransition."""
    result = result_of(check)
    if result is None:
        raise IllegalTransition(f"Check {check.id} has no rows to show: its status is '{check.status}'.")
    report = result.training_file if param == "training_file" else result.validation_file
    if report is None:
        raise InvalidRequest(f"Check {check.id} has no validation file.", param="file")
    if not report.valid:
        what = param.replace("_", " ")
        raise InvalidRequest(
            f"The {what} of check {check.id} is invalid; its rows can be shown once its problems are corrected.",
            param="file",
        )
    return report


def _data(check: Check, param: FileParam) -> str | None:
    return check.training_data if param == "training_file" else check.validation_data


async def _read_rows(ctx: Context, object_key: str, start: int, count: int) -> list[RowMask]:
    """Reads the places of the rows, then as many rows as PAGE_BYTES hold. Raises ObjectMissing."""
    index_key, rows_key = beside_dataset(object_key, MASKS_INDEX), beside_dataset(object_key, MASKS)
    places = array("q", await _read(ctx, index_key, start * INDEX_BYTES, (start + count + 1) * INDEX_BYTES))
    ends = [end for end in places[1:] if end - places[0] <= PAGE_BYTES] or [places[1]]
    content = await _read(ctx, rows_key, places[0], ends[-1])
    return [ROW.validate_json(line) for line in content.splitlines()]


async def _read(ctx: Context, key: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in ctx.storage.open(key, start, end)])
