"""`step_metrics.csv`, the file of a finished job's metrics, from its events into storage.

Knows OpenAI's columns; must not know what the model is or whether it may be announced.
"""

import asyncio
import csv
import io
import time
from collections.abc import Mapping
from typing import Any

from service.domain import ids
from service.domain.file import RESULT_PURPOSE, File, Segment
from service.domain.job import Job
from service.installation.context import Context
from service.operations import lookups
from service.recipes.objective import find_objective
from workers.jobs.staging import store_bytes


async def store_result(ctx: Context, job: Job) -> tuple[File, list[Segment]]:
    """Stores the file, and answers what its row needs. Cells that were not measured are empty. Raises StorageError."""
    rows = await lookups.metrics_of(ctx, job.id)
    content = await asyncio.to_thread(_csv, rows, find_objective(job.objective).columns)
    file_id = ids.file_id()
    key = f"files/{file_id}/0"
    segment = Segment(key, len(content), await store_bytes(ctx.storage, key, content))
    file = File(
        id=file_id,
        project_id=job.project_id,
        purpose=RESULT_PURPOSE,
        filename="step_metrics.csv",
        content_type="text/csv",
        bytes=len(content),
        created_at=int(time.time()),
    )
    return file, [segment]


def _csv(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(source, "") for source in columns.values()] for row in rows)
    return text.getvalue().encode()
