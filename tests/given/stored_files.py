"""Files written into the database without anybody's upload, and what it says of their bytes.

The database is used directly because an upload brings bytes, and no operation shows what nobody may use any more.
"""

import hashlib
from dataclasses import replace

from sqlalchemy import select

from service.db import files
from service.db.tables import file_segments
from service.domain import ids
from service.domain.file import RESULT_PURPOSE, File, Segment
from service.installation.context import Context
from service.operations.keys import Caller
from service.storage.base import one_chunk


def a_file(caller: Caller) -> File:
    """Not stored yet."""
    return File(ids.file_id(), caller.project_id, "fine-tune", "a.jsonl", "text/jsonl", 3, created_at=1)


async def add_file(ctx: Context, caller: Caller, *, num_segments: int = 0) -> str:
    """A training file whose rows say that it has bytes in so many objects `files/ID/N`; its id."""
    file = a_file(caller)
    segments = [Segment(f"files/{file.id}/{number}", 1, "0" * 64) for number in range(num_segments)]
    async with ctx.database.transaction() as tx:
        await files.add(tx, file, segments)
    return file.id


async def add_result(ctx: Context, caller: Caller, content: bytes) -> str:
    """A result file with these bytes, as a worker stores it; its id."""
    file = replace(a_file(caller), purpose=RESULT_PURPOSE, filename="step_metrics.csv", bytes=len(content))
    segment = Segment(f"files/{file.id}/0", len(content), hashlib.sha256(content).hexdigest())
    await ctx.storage.put(segment.key, one_chunk(content))
    async with ctx.database.transaction() as tx:
        await files.add(tx, file, [segment])
    return file.id


async def unneeded_files(ctx: Context) -> list[str]:
    """Deleted files whose bytes may go now."""
    async with ctx.database.reading() as tx:
        return await files.unneeded(tx, 10)


async def named_objects(ctx: Context) -> set[str]:
    """The keys in storage of all files' bytes."""
    async with ctx.database.reading() as tx:
        return set((await tx.connection.execute(select(file_segments.c.key))).scalars())
