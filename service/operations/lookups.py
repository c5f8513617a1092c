"""What a worker reads while it works on a job. Writes are in `service.operations.progress`."""

import hashlib

from service.db import datasets, events, files, jobs, keys, models, snapshots, work
from service.db.keys import Installation
from service.domain.dataset import StoredDataset
from service.domain.file import File, Segment
from service.domain.job import Checkpoint, Job, Metrics, Snapshot
from service.domain.work import Claim
from service.installation.context import Context


async def find_job(ctx: Context, id: str) -> Job | None:
    """The job."""
    async with ctx.database.reading() as tx:
        return await jobs.find(tx, None, id)


async def is_superseded(ctx: Context, claim: Claim[Job]) -> bool:
    """Whether another attempt has taken over the work of this claim."""
    async with ctx.database.reading() as tx:
        current = await work.find(tx, claim.work.subject_id)
    return any(found.attempt > claim.attempt for found in current)


async def find_file(ctx: Context, id: str) -> tuple[File, list[Segment]] | None:
    """A file and where its bytes lie; None when its user deleted it."""
    async with ctx.database.reading() as tx:
        file = await files.find(tx, None, id)
        return None if file is None else (file, await files.segments(tx, id))


async def find_dataset(ctx: Context, object_key: str) -> StoredDataset | None:
    """What is known of tokenised rows; None for those of a job that an earlier version validated."""
    async with ctx.database.reading() as tx:
        return await datasets.find(tx, object_key)


async def find_snapshots(ctx: Context, job_id: str) -> list[Snapshot]:
    """What the job can continue from, newest first."""
    async with ctx.database.reading() as tx:
        return await snapshots.of_job(tx, job_id)


async def find_checkpoint(ctx: Context, job_id: str, step: int) -> Checkpoint | None:
    """The job's published checkpoint at `step`, from an earlier attempt."""
    async with ctx.database.reading() as tx:
        return await models.find_checkpoint(tx, job_id, step)


async def metrics_since(ctx: Context, job_id: str, sequence: int, limit: int) -> list[tuple[int, Metrics]]:
    """Number and data of at most `limit` metrics events, oldest first, behind number `sequence`."""
    async with ctx.database.reading() as tx:
        return await events.metrics_since(tx, job_id, sequence, limit)


async def metrics_of(ctx: Context, job_id: str, limit: int = 5000) -> list[Metrics]:
    """The data of the newest `limit` metrics events, oldest first."""
    async with ctx.database.reading() as tx:
        return await events.last_metrics(tx, job_id, limit)


async def file_hash(ctx: Context, id: str) -> str:
    """SHA-256 of the file's bytes; of its segments' hashes where it has several. Also of a deleted file."""
    async with ctx.database.reading() as tx:
        segments = await files.segments(tx, id)
    if len(segments) == 1:
        return segments[0].sha256
    return hashlib.sha256("".join(segment.sha256 for segment in segments).encode()).hexdigest()


async def find_installation(ctx: Context) -> Installation:
    """The organisation of this installation; `luthierd up` or `keys create` made it."""
    async with ctx.database.reading() as tx:
        installation = await keys.find_installation(tx)
    assert installation is not None, "a job cannot exist without an installation"
    return installation
