"""Merges of models as if they had ended some time ago. The database is used because no operation moves time."""

import time

from sqlalchemy import update

from service.db.tables import model_merges
from service.installation.context import Context


async def end_long_ago(ctx: Context, id: str, *, seconds: float) -> None:
    async with ctx.database.transaction() as tx:
        values = {"finished_at": int(time.time() - seconds)}
        await tx.connection.execute(update(model_merges).where(model_merges.c.id == id).values(values))
