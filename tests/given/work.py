"""Claims of a job's work, as a worker makes them, and rows of work in the states that tests need.

The database is used directly because no operation ends a lease, hurries what waits, or counts claims of work.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from service.db import work
from service.db.connection import Transaction
from service.db.tables import work as rows
from service.domain.job import Job
from service.domain.work import Work, WorkerState
from service.installation.context import Context
from service.operations.job_work import ANNOUNCE, TRAIN, VALIDATE
from service.operations.progress import HeldJob
from service.work import claims
from service.work.kinds import Kind

KINDS = {"validating_files": VALIDATE, "queued": TRAIN, "running": TRAIN, "paused": TRAIN}


async def claim(
    ctx: Context, kind: Kind[Job], owner: str, bases: Sequence[str] | None = None, resident: str | None = None
) -> HeldJob | None:
    """The next job for `owner`; of any base of the catalogue without `bases`."""
    bases = list(ctx.catalogue.bases) if bases is None else bases
    found = await claims.claim(ctx, kind, owner, bases, resident=resident)
    return None if found is None else HeldJob(ctx, found)


async def claim_validation(ctx: Context, owner: str, bases: Sequence[str] | None = None) -> HeldJob | None:
    return await claim(ctx, VALIDATE, owner, bases)


async def claim_training(
    ctx: Context, owner: str, bases: Sequence[str] | None = None, resident: str | None = None
) -> HeldJob | None:
    return await claim(ctx, TRAIN, owner, bases, resident)


async def claim_announcement(ctx: Context, owner: str, bases: Sequence[str] | None = None) -> HeldJob | None:
    return await claim(ctx, ANNOUNCE, owner, bases)


async def renew(ctx: Context, owner: str, held: Sequence[HeldJob]) -> dict[str, int]:
    """What `owner` still holds after a beat: job id -> attempt."""
    still = await claims.renew(ctx, WorkerState(owner, "here", {}), held)
    return {one.job.id: one.attempt for one in held if one.id in still}


async def add_work(tx: Transaction, job: Job) -> None:
    """What is next for a job in its status; nothing for one that has ended."""
    kind = KINDS.get(job.status)
    if kind is not None:
        await work.add(tx, kind.name, job.id, job.project_id, job.base, paused=job.status == "paused")


async def set_work(ctx: Context, job_id: str, **values: Any) -> None:
    async with ctx.database.transaction() as tx:
        await tx.connection.execute(update(rows).where(rows.c.subject_id == job_id).values(**values))


async def remove_work(ctx: Context, job_id: str) -> None:
    async with ctx.database.transaction() as tx:
        await work.remove(tx, [found.id for found in await work.find(tx, job_id)])


async def work_of(ctx: Context, job_id: str) -> Work | None:
    """What is still to be done for the job."""
    async with ctx.database.reading() as tx:
        found = await work.find(tx, job_id)
    assert len(found) <= 1
    return found[0] if found else None


async def column(ctx: Context, job_id: str, name: str) -> Any:
    """One value of the job's row of work."""
    async with ctx.database.reading() as tx:
        return await tx.connection.scalar(select(rows.c[name]).where(rows.c.subject_id == job_id))
