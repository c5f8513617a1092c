"""As many jobs as a project collects over years.

The database is used directly because made by operations, one by one, they would take minutes.
"""

from dataclasses import fields, replace

from sqlalchemy import insert

from service.db.tables import job_events, jobs
from service.domain import event as wording
from service.domain import ids
from service.domain.job import Job
from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.stored_jobs import add_job

WITH_CURVES = 100  # the newest
BATCH = 1000


async def add_many(ctx: Context, caller: Caller, count: int, *, num_steps: int) -> None:
    """Succeeded jobs of one file; the newest WITH_CURVES have a curve."""
    first = replace(await add_job(ctx, caller, "succeeded"), step=num_steps, total_steps=num_steps)
    rows = [{**_row(first), "id": ids.job_id(), "suffix": f"run-{number}"} for number in range(count - 1)]
    async with ctx.database.transaction() as tx:
        for start in range(0, len(rows), BATCH):
            await tx.connection.execute(insert(jobs), rows[start : start + BATCH])
        for row in rows[-WITH_CURVES:]:
            await tx.connection.execute(insert(job_events), _events(row["id"], num_steps))


def _row(job: Job) -> dict[str, object]:
    return {field.name: getattr(job, field.name) for field in fields(Job)}


def _events(job_id: object, num_steps: int) -> list[dict[str, object]]:
    found = []
    for step in range(1, num_steps + 1):
        event = wording.step({"step": step, "total_steps": num_steps, "train_loss": 1 / step})
        found.append(
            {
                "job_id": job_id,
                "sequence": step,
                "id": ids.event_id(),
                "created_at": 1,
                "level": event.level,
                "type": event.type,
                "message": event.message,
                "data": dict(event.data),
                "key": event.key,
            }
        )
    return found
