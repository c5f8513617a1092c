"""Files of a project: bytes stream to storage first, then one transaction makes them a file.

Bytes that no row names are removed: an upload that ends early leaves nothing behind. The lines of a training file are
checked as they come; what is wrong with them is kept with the file, which is a file like any other.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from service.db import events, files, jobs, work
from service.db.connection import Transaction
from service.domain import event as wording
from service.domain import ids
from service.domain.errors import LuthierError, NotFound, TooLarge, Unavailable
from service.domain.file import TRAINING_PURPOSE, File, Segment, check_purpose, life_seconds
from service.domain.job import Job
from service.domain.storage_keys import file_key
from service.installation.context import Context
from service.operations import quotas, segments
from service.operations.keys import Caller
from service.operations.paging import Page, cut
from service.operations.segments import STORAGE_UNAVAILABLE
from service.recipes.upload_check import UploadCheck
from service.storage import StorageError

DOWNLOAD_SECONDS = 300
NOT_STARTED = ("validating_files", "queued")


@dataclass(frozen=True)
class NewFile:
    """The metadata that a user sends with the bytes; `life_seconds` is None for a file that stays."""

    filename: str
    purpose: str
    content_type: str = "application/octet-stream"
    life_seconds: int | None = None


class Incoming:
    """One upload being received: `store` once, then `create` once."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._id = ids.file_id()
        self._segment: Segment | None = None
        self._problems: str | None = None
        self._created = False

    async def store(self, chunks: AsyncIterator[bytes], purpose: str | None = None) -> None:
        """Streams the bytes to storage. Raises TooLarge at the first byte beyond the limit, or Unavailable.

        Checks lines on the way unless the file is known to have another `purpose`; None: it is not known yet.
        """
        settings = self._ctx.settings
        key, error = file_key(self._id), too_large(settings.file_limit_bytes)
        if purpose not in (None, TRAINING_PURPOSE):
            self._segment = await segments.store(self._ctx, key, chunks, settings.file_limit_bytes, error)
            return
        check = UploadCheck(settings.row_limit_bytes)
        self._segment = await segments.store(self._ctx, key, chunks, settings.file_limit_bytes, error, check.feed)
        self._problems = await asyncio.to_thread(check.finish)

    async def create(self, caller: Caller, new: NewFile) -> File:
        """Makes the stored bytes a file of the caller's project. Raises InvalidRequest, QuotaExceeded or TooLarge."""
        assert self._segment is not None, "nothing was stored"
        check_purpose(new.purpose)
        problems = self._problems if new.purpose == TRAINING_PURPOSE else None
        file = _file(self._id, caller, new, self._segment, problems)
        async with self._ctx.database.transaction() as tx:
            await quotas.check_file(self._ctx, tx, caller, file.bytes)
            await files.add(tx, file, [self._segment])
        self._created = True
        return file

    async def clear(self) -> None:
        """Removes stored bytes that did not become a file."""
        if self._segment is not None and not self._created:
            with suppress(StorageError):
                await self._ctx.storage.delete(self._segment.key)


@asynccontextmanager
async def incoming(ctx: Context) -> AsyncIterator[Incoming]:
    """A block that receives bytes; what did not become a file by its end is removed."""
    upload = Incoming(ctx)
    try:
        yield upload
    finally:
        await upload.clear()


async def retrieve(ctx: Context, caller: Caller, id: str) -> File:
    """One file. Raises NotFound, for another project's too."""
    async with ctx.database.reading() as tx:
        return await _find(tx, caller, id)


async def page(
    ctx: Context, caller: Caller, *, purpose: str | None, after: str | None, limit: int, ascending: bool
) -> Page[File]:
    """Files by age, beyond `after`; an unknown `after` gives an empty page."""
    async with ctx.database.reading() as tx:
        rows = await files.page(tx, caller.project_id, purpose, after, limit + 1, ascending=ascending)
    return cut(rows, limit)


async def delete(ctx: Context, caller: Caller, id: str) -> None:
    """Hides the file at once; jobs that wait for it fail, running ones continue. Raises NotFound."""
    async with ctx.database.transaction() as tx:
        await _find(tx, caller, id)
        if not await files.hide(tx, id):
            raise _missing(id)  # another call was faster
        await _fail_waiting(tx, id)


async def expire(ctx: Context, limit: int) -> None:
    """Hides at most `limit` files whose time is over, with what follows for jobs as if they were deleted."""
    async with ctx.database.transaction() as tx:
        for file in await files.expired(tx, limit):
            if await files.hide(tx, file.id):
                await _fail_waiting(tx, file.id)


async def download_url(ctx: Context, caller: Caller, id: str) -> str | None:
    """A URL of the bytes that needs no key, for a while; None where they have to pass through the service.

    Raises NotFound, or Unavailable where storage is unavailable or has lost the bytes.
    """
    if not ctx.settings.storage_presigned:
        return None
    async with ctx.database.reading() as tx:
        file = await _find(tx, caller, id)
        stored = await files.segments(tx, id)
    if len(stored) != 1:
        return None
    try:
        await ctx.storage.size(stored[0].key)
        return await ctx.storage.download_url(stored[0].key, file.filename, DOWNLOAD_SECONDS)
    except StorageError as error:
        raise Unavailable(STORAGE_UNAVAILABLE) from error


async def content(ctx: Context, caller: Caller, id: str) -> tuple[File, AsyncIterator[bytes]]:
    """The file and its bytes in order. Raises NotFound, or Unavailable before the first byte."""
    async with ctx.database.reading() as tx:
        file = await _find(tx, caller, id)
        stored = await files.segments(tx, id)
    try:
        for segment in stored[:1]:
            await ctx.storage.size(segment.key)
    except StorageError as error:
        raise Unavailable(STORAGE_UNAVAILABLE) from error
    return file, segments.read(ctx, stored)


async def _find(tx: Transaction, caller: Caller, id: str) -> File:
    file = await files.find(tx, caller.project_id, id)
    if file is None:
        raise _missing(id)
    return file


def _missing(id: str) -> NotFound:
    return NotFound(f"No such File object: {id}", param="id")


async def _fail_waiting(tx: Transaction, id: str) -> None:
    """The jobs that needed the file and had not started."""
    await work.lock(tx, [job.id for job in await jobs.uses_file(tx, id)])  # no job can be added: the file is hidden
    for job in await jobs.uses_file(tx, id, lock=True):
        if job.status in NOT_STARTED and job.started_at is None:  # a resumed one is queued, but has started
            await _fail(tx, job, id)


async def _fail(tx: Transaction, job: Job, file_id: str) -> None:
    kind = "training" if job.training_file == file_id else "validation"
    error = {
        "code": f"deleted_{kind}_file",
        "message": f"The job failed because the {kind} file was deleted",
        "param": f"{kind}_file",
    }
    failed = {"status": "failed", "error": error, "finished_at": int(time.time())}
    if await jobs.change(tx, job.id, job.status, failed):
        await work.remove(tx, [found.id for found in await work.find(tx, job.id)])
        await events.add(tx, job.id, [wording.failed(error["message"], error)])


def _file(id: str, caller: Caller, new: NewFile, segment: Segment, problems: str | None) -> File:
    now = int(time.time())
    life = life_seconds(new.purpose, new.life_seconds)
    return File(
        id=id,
        project_id=caller.project_id,
        purpose=new.purpose,
        filename=new.filename,
        content_type=new.content_type,
        bytes=segment.bytes,
        created_at=now,
        expires_at=None if life is None else now + life,
        status_details=problems,
    )


def too_large(limit_bytes: int) -> LuthierError:
    """The error for a file beyond the limit."""
    return TooLarge(
        f"The file is too large: this installation accepts at most {limit_bytes:,} bytes per file.",
        param="file",
        code="file_too_large",
    )
