"""How long a checked job would take, from what was measured of jobs of the same base, method and tuning.

They are of all projects, so that a new one knows too; what is returned is one figure over several of them.
"""

from dataclasses import dataclass

from service.db import bases, jobs, work
from service.domain.check import Check, Plan
from service.domain.duration import JOBS_NEEDED, Duration, Measured, predict, uninterrupted
from service.installation.context import Context
from service.operations.job_work import TRAIN
from service.operations.jobs import QUEUE_LIMIT
from service.recipes.objective import find_objective

NEWEST = 40  # of the jobs that could be measured


@dataclass(frozen=True)
class Forecast:
    """The duration, or why it is unknown."""

    duration: Duration | None
    unknown: str | None = None


async def forecast(ctx: Context, check: Check, plan: Plan) -> Forecast:
    """For a job of this plan."""
    tuning = str(check.tuning["type"])
    async with ctx.database.reading() as tx:
        rows = await jobs.newest_timed(tx, check.base, check.objective, tuning, NEWEST)
        announce_seconds = (await bases.announce_seconds(tx, [check.base])).get(check.base, 0.0)
        waiting = await work.waiting(tx, TRAIN.name, check.base, QUEUE_LIMIT)
    past = [job for job in map(_measured, rows) if uninterrupted(job, announce_seconds)]
    if len(past) < JOBS_NEEDED:
        return Forecast(
            None,
            f"How long the job takes is unknown: of base {check.base}, {check.objective} and {tuning}, {len(past)} of "
            f"the {JOBS_NEEDED} jobs that an estimate needs have been measured. It is known once more have succeeded.",
        )
    rows_each = 2 if find_objective(check.objective).unpaired else 1  # a row is trained beside a mismatched one
    seconds, low, high = predict(plan.total_steps, rows_each * plan.tokens, past)
    return Forecast(Duration(seconds, low, high, based_on=len(past), queue_position=waiting))


def _measured(row: jobs.Timed) -> Measured:
    return Measured(row.step, row.trained_tokens, row.seconds_per_step, row.finished_at - row.started_at)
