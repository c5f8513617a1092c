"""/v1/fine_tuning/checkpoints/{name}/permissions: from the wire to `operations.models` and back.

Names contain `:`, and those that foreign clients send may contain `/`.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from service.api.schemas.fields import Text
from service.api.schemas.permissions import CreatePermissions, PermissionDeleted, PermissionObject
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.pagination import After, CursorList, Limit, as_cursor_list
from service.operations import models
from service.operations.paging import Page

router = APIRouter(prefix="/fine_tuning/checkpoints", tags=["Fine-tuning"], route_class=ApiRoute)

PATH = "/{fine_tuned_model_checkpoint:path}/permissions"
ModelName = Annotated[Text, Path(description="The name of the checkpoint, as a job's checkpoints list it.")]
PermissionId = Annotated[Text, Path(description="The id of the permission.")]
ProjectId = Annotated[Text | None, Query(description="Only the permission of this project.")]
Order = Annotated[Literal["ascending", "descending"], Query(description="`descending`: newest first.")]


@router.get(PATH, operation_id="listFineTuningCheckpointPermissions")
async def page(
    ctx: ContextDep,
    caller: CallerDep,
    fine_tuned_model_checkpoint: ModelName,
    project_id: ProjectId = None,
    after: After = None,
    limit: Limit = 10,
    order: Order = "descending",
) -> CursorList[PermissionObject]:
    """List the projects that may call a checkpoint besides its own."""
    found = await models.permission_page(
        ctx,
        caller,
        fine_tuned_model_checkpoint,
        project_id=project_id,
        after=after,
        limit=limit,
        ascending=order == "ascending",
    )
    return as_cursor_list(found, PermissionObject.of, lambda permission: permission.id)


@router.post(PATH, operation_id="createFineTuningCheckpointPermission")
async def create(
    ctx: ContextDep, caller: CallerDep, fine_tuned_model_checkpoint: ModelName, body: CreatePermissions
) -> CursorList[PermissionObject]:
    """Let other projects call a checkpoint."""
    granted = await models.grant(ctx, caller, fine_tuned_model_checkpoint, body.project_ids)
    return as_cursor_list(Page(granted, has_more=False), PermissionObject.of, lambda permission: permission.id)


@router.delete(PATH + "/{permission_id}", operation_id="deleteFineTuningCheckpointPermission")
async def delete(
    ctx: ContextDep, caller: CallerDep, fine_tuned_model_checkpoint: ModelName, permission_id: PermissionId
) -> PermissionDeleted:
    """Revoke a permission."""
    await models.revoke(ctx, caller, fine_tuned_model_checkpoint, permission_id)
    return PermissionDeleted(id=permission_id)
