"""Rows of tokenised files that all jobs share, as no operation shows them, and time that has passed for them.

The database is used directly because a day cannot be waited for.
"""

from sqlalchemy import select, update

from service.db.datasets import UNUSED_SECONDS
from service.db.tables import datasets
from service.installation.context import Context


async def shared_objects(ctx: Context) -> list[str]:
    """The objects that the rows name."""
    async with ctx.database.reading() as tx:
        return list((await tx.connection.execute(select(datasets.c.object_key))).scalars())


async def let_a_day_pass(ctx: Context) -> None:
    """Nobody has used any of them for so long that an unneeded one goes."""
    async with ctx.database.transaction() as tx:
        await tx.connection.execute(update(datasets).values(used_at=datasets.c.used_at - UNUSED_SECONDS - 1))
