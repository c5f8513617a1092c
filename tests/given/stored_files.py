"""Files written into the database without anybody's upload, and what it says of their bytes.

The database is spoken to because an upload brings bytes, and because no operation shows what nobody may use any more.
"""

from sqlalchemy import select

from service.db import files
from service.db.tables import file_segments
from service.domain import ids
from service.domain.file import File, Segment
from service.installation.context import Context
from service.operations.keys import Caller


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


async def unneeded_files(ctx: Context) -> list[str]:
    """Deleted files whose bytes may go now."""
    async with ctx.database.reading() as tx:
        return await files.unneeded(tx, 10)


async def named_objects(ctx: Context) -> set[str]:
    """The keys in storage of all files' bytes."""
    async with ctx.database.reading() as tx:
        return set((await tx.connection.execute(select(file_segments.c.key))).scalars())
