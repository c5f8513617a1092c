"""Result files of a finished job: `step_metrics.csv`, streamed from its events, and the last checkpoint's tables."""

import csv
import io
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from service.domain import ids
from service.domain.file import RESULT_PURPOSE, File, Segment
from service.domain.job import Job
from service.domain.storage_keys import artifact_prefix, file_key
from service.installation.context import Context
from service.operations import lookups
from service.recipes.objective import find_objective
from service.storage.base import read
from service.storage.hashed import Hashed
from workers.files.artifacts import read_manifest
from workers.files.transfer import storage_retry
from workers.jobs.staging import store_bytes

BATCH_ROWS = 500
TABLE = ".csv"


async def store_result(ctx: Context, job: Job) -> tuple[File, list[Segment]]:
    """Stores the file and returns its row and segments. Cells without a value are empty. Raises StorageError."""
    file_id = ids.file_id()
    segment = await _store(ctx, job, file_key(file_id))
    return _file(job, file_id, "step_metrics.csv", segment.bytes), [segment]


def _file(job: Job, id: str, name: str, num_bytes: int) -> File:
    return File(
        id=id,
        project_id=job.project_id,
        purpose=RESULT_PURPOSE,
        filename=name,
        content_type="text/csv",
        bytes=num_bytes,
        created_at=int(time.time()),
    )


async def store_reports(ctx: Context, job: Job, model: str) -> list[tuple[File, list[Segment]]]:
    """Copies the tables that stand beside the adapter of `model`, each as a file of its own. Raises StorageError."""
    manifest = await storage_retry(read_manifest)(ctx.storage, model)
    stored = []
    for name in sorted(manifest.files):
        if name.endswith(TABLE):
            content = await storage_retry(read)(ctx.storage, artifact_prefix(model) + name)
            stored.append(await _stored_table(ctx, job, name, content))
    return stored


async def _stored_table(ctx: Context, job: Job, name: str, content: bytes) -> tuple[File, list[Segment]]:
    file_id = ids.file_id()
    sha256 = await store_bytes(ctx.storage, file_key(file_id), content)
    segment = Segment(file_key(file_id), len(content), sha256)
    return _file(job, file_id, name, len(content)), [segment]


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
