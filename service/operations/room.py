"""Which of the running workers have room for a checked job, by what their last beats said."""

from service.db import workers
from service.domain.memory import Memory, MemoryNeed, rooms
from service.installation.context import Context


async def room(ctx: Context, base: str, need: MemoryNeed) -> Memory:
    """The workers that hold the base."""
    async with ctx.database.reading() as tx:
        living = await workers.living(tx, ctx.settings.lease_seconds)
    holding = {worker.id: worker.memory.get(base) for worker in living if base in worker.bases}
    return Memory(need, rooms(need, holding))
