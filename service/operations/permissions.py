"""Who else may call a tuned model: its project, or an admin key of any project, grants it to other projects.

A grant has effect at the grantee's next request, and so has its end; `operations.models` asks for it there.
"""

import time
from collections.abc import Sequence

from service.db import keys, models, permissions
from service.db.connection import Transaction
from service.domain import ids
from service.domain.errors import InvalidRequest, NotFound
from service.domain.model import Model, Permission
from service.installation.context import Context
from service.operations.keys import Caller
from service.operations.paging import Page, cut


async def grant(ctx: Context, caller: Caller, model: str, project_ids: Sequence[str]) -> list[Permission]:
    """Lets these projects call the model, in this order; one that may already keeps the permission that it has.

    Raises NotFound for a model that is not the caller's to grant, InvalidRequest for an unknown project.
    """
    async with ctx.database.transaction() as tx:
        if await _find(tx, caller, model, lock=True) is None:
            raise NotFound(f"No such checkpoint: {model}", param="fine_tuned_model_checkpoint", code="model_not_found")
        await _check_projects(tx, project_ids)
        granted = await permissions.of_projects(tx, model, project_ids)
        for project_id in project_ids:
            if project_id not in granted:
                granted[project_id] = Permission(ids.permission_id(), model, project_id, int(time.time()))
                await permissions.add(tx, granted[project_id])
    return [granted[project_id] for project_id in dict.fromkeys(project_ids)]


async def page(
    ctx: Context, caller: Caller, model: str, *, project_id: str | None, after: str | None, limit: int, ascending: bool
) -> Page[Permission]:
    """The model's permissions by age, beyond `after`; none for a model that is not the caller's to grant."""
    async with ctx.database.reading() as tx:
        if await _find(tx, caller, model) is None:
            return Page([], has_more=False)
        return cut(await permissions.page(tx, model, project_id, after, limit + 1, ascending=ascending), limit)


async def revoke(ctx: Context, caller: Caller, model: str, id: str) -> None:
    """Takes a permission back. Raises NotFound."""
    async with ctx.database.transaction() as tx:
        if await _find(tx, caller, model) is None or not await permissions.remove(tx, model, id):
            raise NotFound(f"No such permission of the checkpoint {model}: {id}", param="permission_id")


async def _find(tx: Transaction, caller: Caller, name: str, *, lock: bool = False) -> Model | None:
    """The living model, if it is the caller's to grant. `lock`: of two grants at once, one sees the other's."""
    model = await models.find(tx, None if caller.role == "admin" else caller.project_id, name, lock=lock)
    return None if model is None or model.deleted_at is not None else model


async def _check_projects(tx: Transaction, project_ids: Sequence[str]) -> None:
    known = await keys.known_projects(tx, project_ids)
    unknown = [id for id in project_ids if id not in known]
    if unknown:
        raise InvalidRequest(f"No such project: {', '.join(unknown)}.", param="project_ids")
