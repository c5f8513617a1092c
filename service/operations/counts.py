"""How many jobs and workers the whole installation has, of all projects: for its operators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.db import jobs, workers
from service.db.jobs import ProjectJobs, Unfinished
from service.domain.job import Status
from service.domain.work import WorkerState
from service.installation.context import Context


@dataclass(frozen=True)
class JobCounts:
    """The jobs at one moment: those that have not ended, by base and status, and how many have ever ended in each way.

    `workers` are those whose last beat is not older than a lease.
    """

    unfinished: Sequence[Unfinished]
    ended: Mapping[Status, int]
    workers: Sequence[WorkerState]


async def count_jobs(ctx: Context) -> JobCounts:
    """Raises Unavailable while the database is unavailable."""
    async with ctx.database.reading() as tx:
        living = await workers.living(tx, ctx.settings.lease_seconds)
        return JobCounts(await jobs.unfinished(tx), await jobs.ended(tx), living)


async def by_project(ctx: Context) -> Sequence[ProjectJobs]:
    """The jobs that have not ended, of each project in each status."""
    async with ctx.database.reading() as tx:
        return await jobs.unfinished_by_project(tx)
