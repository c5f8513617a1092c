"""Uploads of a project: parts stream to storage in any order, and one transaction makes a file of those that are named.

A part that is rejected or not named is removed: here, or in `service.operations.chores`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from service.db import files, uploads
from service.db.connection import Transaction
from service.domain import ids
from service.domain.errors import InvalidRequest, NotFound, TooLarge
from service.domain.file import File, Segment, check_purpose, life_seconds
from service.domain.storage_keys import part_key
from service.domain.upload import (
    LIFE_SECONDS,
    PART_LIMIT_BYTES,
    Status,
    Upload,
    UploadPart,
    check_pending,
    check_room,
    not_pending,
    put_in_order,
)
from service.installation.context import Context
from service.operations import quotas, segments
from service.operations.keys import Caller
from service.storage import StorageError
from service.storage.hashed import Hashed


@dataclass(frozen=True)
class NewUpload:
    """The upload that a user asks for; `life_seconds` is the file's, None for one that stays."""

    filename: str
    purpose: str
    content_type: str
    bytes: int
    life_seconds: int | None = None


class IncomingPart:
    """One part being received: `store` once, then `add` once."""

    def __init__(self, ctx: Context, caller: Caller, upload: Upload) -> None:
        self._ctx = ctx
        self._caller = caller
        self._upload = upload
        self._id = ids.part_id()
        self._segment: Segment | None = None
        self._added = False

    async def store(self, chunks: AsyncIterator[bytes]) -> None:
        """Streams the bytes to storage, for as long as the upload lives. Raises TooLarge or Unavailable."""
        key = part_key(self._upload.id, self._id)
        try:
            async with asyncio.timeout(self._upload.expires_at - time.time()):
                self._segment = await segments.store(self._ctx, key, chunks, PART_LIMIT_BYTES, part_too_large())
        except TimeoutError as error:
            raise not_pending(self._upload.at(self._upload.expires_at)) from error

    async def add(self) -> UploadPart:
        """Makes the stored bytes a part. Raises IllegalTransition when the upload has ended meanwhile."""
        assert self._segment is not None, "nothing was stored"
        part = UploadPart(self._id, self._upload.id, int(time.time()), self._segment)
        async with self._ctx.database.transaction() as tx:
            added = await uploads.add_part(tx, part)
            if not added:
                upload = await _find(tx, self._caller, self._upload.id)
                check_pending(upload)
                check_room(upload, part.segment.bytes)
            assert added, "a pending upload with room takes a part"
            await quotas.check_part(self._ctx, tx, self._caller)
        self._added = True
        return part

    async def clear(self) -> None:
        """Removes stored bytes that did not become a part."""
        if self._segment is not None and not self._added:
            with suppress(StorageError):
                await self._ctx.storage.delete(self._segment.key)


async def create(ctx: Context, caller: Caller, new: NewUpload) -> Upload:
    """A pending upload, which lives for an hour. Raises InvalidRequest, QuotaExceeded or TooLarge."""
    check_purpose(new.purpose)
    now = int(time.time())
    upload = Upload(
        id=ids.upload_id(),
        project_id=caller.project_id,
        filename=new.filename,
        purpose=new.purpose,
        content_type=new.content_type,
        bytes=new.bytes,
        created_at=now,
        expires_at=now + LIFE_SECONDS,
        life_seconds=life_seconds(new.purpose, new.life_seconds),
    )
    async with ctx.database.transaction() as tx:
        await quotas.check_upload(ctx, tx, caller, new.bytes)
        await uploads.add(tx, upload)
    return upload


@asynccontextmanager
async def incoming_part(ctx: Context, caller: Caller, upload_id: str) -> AsyncIterator[IncomingPart]:
    """A block that receives a part's bytes; what did not become a part by its end is removed.

    Raises NotFound, or IllegalTransition or InvalidRequest when the upload takes no part, before any byte is read.
    """
    async with ctx.database.reading() as tx:
        upload = await _find(tx, caller, upload_id)
    check_pending(upload)
    check_room(upload, 0)
    part = IncomingPart(ctx, caller, upload)
    try:
        yield part
    finally:
        await part.clear()


async def complete(
    ctx: Context, caller: Caller, upload_id: str, part_ids: Sequence[str], md5: str | None = None
) -> tuple[Upload, File]:
    """Makes a file of the named parts, in that order. Of two concurrent calls, one succeeds.

    Raises NotFound, IllegalTransition or Unavailable; and InvalidRequest when parts, bytes or `md5` (in hex) do not
    match, QuotaExceeded when the project may have no further file: the upload stays pending then.
    """
    async with ctx.database.reading() as tx:
        upload = await _find(tx, caller, upload_id)
        stored = await uploads.parts(tx, upload_id)
    check_pending(upload)
    ordered = put_in_order(upload, stored, part_ids)
    if md5 is not None:
        await _check_md5(ctx, ordered, md5)
    file = _file(upload)
    async with ctx.database.transaction() as tx:
        check_pending(await _find(tx, caller, upload_id, lock=True))
        await quotas.check_completed(ctx, tx, caller)
        await files.add(tx, file, ordered)
        completed = await _end(tx, upload, "completed", file.id)
        await uploads.remove_parts(tx, part_ids)
    return completed, file


async def cancel(ctx: Context, caller: Caller, upload_id: str) -> Upload:
    """Ends a pending upload; its parts are swept. Raises NotFound or IllegalTransition."""
    async with ctx.database.transaction() as tx:
        return await _end(tx, await _find(tx, caller, upload_id), "cancelled")


def part_too_large() -> TooLarge:
    """The error for a part beyond the limit."""
    return TooLarge(
        f"The part is too large: a part may have at most {PART_LIMIT_BYTES:,} bytes. Send more and smaller parts.",
        param="data",
        code="part_too_large",
    )


async def _find(tx: Transaction, caller: Caller, id: str, *, lock: bool = False) -> Upload:
    upload = await uploads.find(tx, caller.project_id, id, lock=lock)
    if upload is None:
        raise NotFound(f"No such Upload object: {id}", param="upload_id")
    return upload


async def _end(tx: Transaction, upload: Upload, status: Status, file_id: str | None = None) -> Upload:
    """The ended upload. Raises IllegalTransition when another call has ended it, or its time is over."""
    ended = await uploads.end(tx, upload.id, status, file_id=file_id)
    found = await uploads.find(tx, upload.project_id, upload.id)
    assert found is not None, "uploads are never deleted"
    if not ended:
        raise not_pending(found)
    return found


async def _check_md5(ctx: Context, ordered: Sequence[Segment], md5: str) -> None:
    found = await Hashed(segments.read(ctx, ordered), "md5").read_to_end()
    if found != md5.lower():
        raise InvalidRequest(
            f"The md5 checksum does not match: the parts, in this order, have {found}.",
            param="md5",
            code="invalid_value",
        )


def _file(upload: Upload) -> File:
    now = int(time.time())
    return File(
        id=ids.file_id(),
        project_id=upload.project_id,
        purpose=upload.purpose,
        filename=upload.filename,
        content_type=upload.content_type,
        bytes=upload.bytes,
        created_at=now,
        expires_at=None if upload.life_seconds is None else now + upload.life_seconds,
    )
