"""How workers count a file's lines: the other half of `made_up_work`, found by the name that its kind gives.

Slow enough to be killed in the middle: it waits until the object `made-up/go` is there. A file whose first line says so
ends its worker, as memory that runs out would.
"""

import asyncio
import os

from service.domain.file import File
from service.operations import lookups
from service.storage import ObjectMissing
from service.storage.base import one_chunk, read
from service.work.held import HeldWork
from tests.given.made_up_work import COUNT_LINES
from workers.supervisor.kinds import Parts, Runner, register

DEADLY = b"this file ends its worker"


async def _count(parts: Parts, held: HeldWork[File]) -> None:
    storage = parts.ctx.storage
    found = await lookups.find_file(parts.ctx, held.subject.id)
    assert found is not None
    content = b"".join([await read(storage, segment.key) for segment in found[1]])
    await storage.put(f"made-up/{held.subject.id}-begun-{held.attempt}", one_chunk(b"."))
    if content.startswith(DEADLY):
        os._exit(9)
    while not await _is_there(parts, "made-up/go"):
        await asyncio.sleep(0.02)
    await storage.put(f"made-up/{held.subject.id}", one_chunk(str(content.count(b"\n")).encode()))
    await held.done()


async def _is_there(parts: Parts, key: str) -> bool:
    try:
        await parts.ctx.storage.size(key)
    except ObjectMissing:
        return False
    return True


register(Runner(COUNT_LINES, lambda settings: 2, _count, HeldWork))
