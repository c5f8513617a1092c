"""A job's metrics as curves, for people: all points of a short job, evenly chosen ones of a long job.

A step's metrics are an event whose key names the step, so that single steps are found without reading the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.db import events, jobs
from service.domain.errors import NotFound
from service.domain.job import Job, Metrics
from service.installation.context import Context
from service.operations.keys import Caller

POINTS = 1500
SPARKLINE_POINTS = 32
LIMIT_JOBS = 8
LOSS = "train_loss"


@dataclass(frozen=True)
class Curve:
    """Metrics by step, and the id of the job's newest event, behind which a follower continues; None for no event."""

    job: Job
    points: Sequence[Metrics]
    last_event: str | None


async def curve(ctx: Context, caller: Caller, id: str) -> Curve:
    """The job's metrics. Raises NotFound."""
    return (await curves(ctx, caller, [id]))[0]


async def curves(ctx: Context, caller: Caller, ids: Sequence[str]) -> list[Curve]:
    """The metrics of at most `LIMIT_JOBS` jobs, in this order. Raises NotFound."""
    found = []
    async with ctx.database.reading() as tx:
        for id in ids[:LIMIT_JOBS]:
            job = await jobs.find(tx, caller.project_id, id)
            if job is None:
                raise NotFound(f"Could not find fine tune: {id}")
            newest = await events.page(tx, id, None, 1)
            if job.step <= POINTS:
                points = [data for _, data in await events.metrics_since(tx, id, 0, POINTS)]
            else:
                chosen = await events.metrics_at(tx, {id: spread(job.step, POINTS)})
                validated = await events.metrics_with(tx, id, "valid_loss", POINTS)
                points = _by_step([*chosen.get(id, []), *validated])
            found.append(Curve(job, points, newest[0].id if newest else None))
    return found


async def sparklines(ctx: Context, caller: Caller, of: Sequence[Job]) -> Mapping[str, list[float]]:
    """The training loss of the caller's jobs at a few steps, by the job's id; of those that have made a step."""
    wanted = {
        job.id: spread(job.step, SPARKLINE_POINTS) for job in of if job.step and job.project_id == caller.project_id
    }
    async with ctx.database.reading() as tx:
        found = await events.metrics_at(tx, wanted)
    return {id: [float(point[LOSS]) for point in _by_step(points) if LOSS in point] for id, points in found.items()}


def spread(last: int, count: int) -> list[int]:
    """At most `count` numbers of 1 to `last`, evenly spread, both ends included."""
    if last <= count:
        return list(range(1, last + 1))
    return sorted({1 + round(index * (last - 1) / (count - 1)) for index in range(count)})


def _by_step(points: Sequence[Metrics]) -> list[Metrics]:
    return [point for _, point in sorted({int(point["step"]): point for point in points}.items())]
