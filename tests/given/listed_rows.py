"""Rows of lists that the service removes by itself: written, and removed, as it does.

The database is called directly because the operations around it take a training, or a thousand imports.
"""

import time

from sqlalchemy import update

from service.db import cursors, model_imports, models
from service.db.tables import removed_rows
from service.domain.job import Checkpoint
from service.domain.model_import import ModelImport, Status
from service.installation.context import Context
from service.operations.keys import Caller


async def add_import(ctx: Context, caller: Caller, id: str, status: Status) -> None:
    """An import that has ended, and of which nothing is stored any more."""
    made = ModelImport(id, caller.project_id, "luthier-tiny", None, None, {}, False, status, 1, finished_at=2)
    async with ctx.database.transaction() as tx:
        await model_imports.add(tx, made)
        await model_imports.mark_swept(tx, id)


async def remove_imports_beyond(ctx: Context, caller: Caller, kept: int) -> None:
    """What a new import does with old ones."""
    async with ctx.database.transaction() as tx:
        await model_imports.remove_beyond(tx, caller.project_id, kept)


async def list_final_checkpoint(ctx: Context, job_id: str, name: str, step: int) -> None:
    """Lists the job's result, in the place of a checkpoint of the same step that was pruned."""
    async with ctx.database.transaction() as tx:
        final = Checkpoint(f"ftckpt_final_{step}", job_id, step, name, {"step": step}, int(time.time()))
        await models.add_final_checkpoint(tx, final)


async def age_removed_rows(ctx: Context) -> None:
    """All were removed for so long that their places are not kept any more."""
    async with ctx.database.transaction() as tx:
        await tx.connection.execute(update(removed_rows).values(removed_at=int(time.time()) - cursors.KEPT_SECONDS - 1))
