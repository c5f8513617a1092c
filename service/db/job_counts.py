"""How many jobs wait, and how many a worker holds: for whoever looks at the installation as a whole.

Asked for at every scrape: of jobs that have ended, however many, only the index by status is read.
"""

import time
from dataclasses import dataclass

from sqlalchemy import and_, func, null, or_, select

from service.db.clock import database_now
from service.db.connection import Transaction
from service.db.tables import jobs, work
from service.db.work import is_alive
from service.domain.job import ACTIVE, FINAL, Status

_JOBS_AND_WORK = jobs.outerjoin(work, work.c.subject_id == jobs.c.id)


@dataclass(frozen=True)
class Unfinished:
    """The jobs of one base in one status; times are unix seconds.

    `lost` are held by a worker whose lease has run out, `trained` wait for their announcement. `unstarted_since` is
    when the oldest was made that waits for its first worker, for its files or for a slot. A job that was resumed does
    not count there: nobody writes down when it began to wait.
    """

    base: str
    status: Status
    jobs: int
    held: int
    lost: int
    trained: int
    unstarted_since: int | None


async def waiting(tx: Transaction, seconds: int) -> int:
    """Jobs that nobody holds although they were made more than `seconds` ago; paused ones are not waiting."""
    unheld = or_(work.c.lease_expires_at.is_(None), work.c.lease_expires_at < database_now())
    old = jobs.c.created_at < int(time.time()) - seconds
    of_jobs = select(func.count()).select_from(_JOBS_AND_WORK)
    return int((await tx.connection.execute(of_jobs.where(work.c.paused.is_(False), unheld, old))).scalar_one())


async def held(tx: Transaction) -> int:
    """Jobs whose lease a worker keeps."""
    query = select(func.count()).select_from(_JOBS_AND_WORK).where(is_alive())
    return int((await tx.connection.execute(query)).scalar_one())


async def unfinished(tx: Transaction) -> list[Unfinished]:
    """Every base and status in which there are jobs that have not ended."""
    lost = work.c.lease_expires_at < database_now()
    waits = and_(
        jobs.c.status.in_(("validating_files", "queued")),
        jobs.c.started_at.is_(None),
        or_(work.c.lease_expires_at.is_(None), lost),
    )
    query = (
        select(
            jobs.c.base,
            jobs.c.status,
            func.count().label("jobs"),
            func.count().filter(is_alive()).label("held"),
            func.count().filter(lost).label("lost"),
            func.count().filter(jobs.c.publication.is_not(null())).label("trained"),
            func.min(jobs.c.created_at).filter(waits).label("unstarted_since"),
        )
        .select_from(_JOBS_AND_WORK)
        .where(jobs.c.status.in_(ACTIVE))
        .group_by(jobs.c.base, jobs.c.status)
    )
    return [Unfinished(**row._mapping) for row in await tx.connection.execute(query)]


async def ended(tx: Transaction) -> dict[Status, int]:
    """How many jobs have ever ended in each way."""
    query = select(jobs.c.status, func.count().label("jobs")).where(jobs.c.status.in_(FINAL)).group_by(jobs.c.status)
    found = {row.status: row.jobs for row in await tx.connection.execute(query)}
    return {status: found.get(status, 0) for status in sorted(FINAL)}
