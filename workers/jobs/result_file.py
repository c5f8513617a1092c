"""`step_metrics.csv`, the file of a finished job's metrics, streamed from its events into storage."""

import csv
import io
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from service.domain import ids
from service.domain.file import RESULT_PURPOSE, File, Segment
from service.domain.job import Job
from service.domain.storage_keys import file_key
from service.installation.context import Context
from service.operations import lookups
from service.recipes.objective import find_objective
from service.storage.hashed import Hashed
from workers.files.transfer import storage_retry

BATCH_ROWS = 500


async def store_result(ctx: Context, job: Job) -> tuple[File, list[Segment]]:
    """Stores the file and returns its row and segments. Cells without a value are empty. Raises StorageError."""
    file_id = ids.file_id()
    segment = await _store(ctx, job, file_key(file_id))
    file = File(
        id=file_id,
        project_id=job.project_id,
        purpose=RESULT_PURPOSE,
        filename="step_metrics.csv",
        content_type="text/csv",
        bytes=segment.bytes,
        created_at=int(time.time()),
    )
    return file, [segment]


@storage_retry
async def _store(ctx: Context, job: Job, key: str) -> Segment:
    content = Hashed(_csv(ctx, job.id, find_objective(job.objective).columns))
    await ctx.storage.put(key, content)
    return Segment(key, content.num_bytes, content.hexdigest)


async def _csv(ctx: Context, job_id: str, columns: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The file in pieces of at most `BATCH_ROWS` rows."""
    yield _lines([columns])
    sequence = 0
    while batch := await lookups.metrics_since(ctx, job_id, sequence, BATCH_ROWS):
        yield _lines([data.get(source, "") for source in columns.values()] for _, data in batch)
        sequence, _ = batch[-1]


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
