"""/v1/fine_tuning/checks: from the wire to `operations.checks` and back. Luthier's own; the body is that of a job."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from service.api.routes.jobs import new_job
from service.api.schemas.checks import CheckDeleted, CheckObject, CheckRows
from service.api.schemas.errors import QUOTA
from service.api.schemas.fields import Text
from service.api.schemas.jobs import CreateCheck
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.pagination import After, ListObject, as_list
from service.domain.check import FileParam
from service.operations import checks
from service.operations.checks import ROWS_LIMIT

router = APIRouter(prefix="/fine_tuning/checks", tags=["Fine-tuning"], route_class=ApiRoute)

CheckId = Annotated[Text, Path(description="The id of the check.")]
Limit = Annotated[int, Query(ge=0, le=1000, description="The most checks to return.")]
FirstRow = Annotated[int, Query(ge=0, le=2**53, description="The first row to return; the file's first is 0.")]
RowLimit = Annotated[int, Query(ge=0, le=ROWS_LIMIT, description="The most rows to return; fewer where they are long.")]
File = Annotated[FileParam, Query(description="Which of the files.")]


@router.post("", operation_id="createFineTuningCheck", responses=QUOTA)
async def create(ctx: ContextDep, caller: CallerDep, body: CreateCheck) -> CheckObject:
    """Check the files and settings of a job without starting it; read the result with its id."""
    return CheckObject.of(await checks.create(ctx, caller, new_job(body)))


@router.get("", operation_id="listFineTuningChecks")
async def page(ctx: ContextDep, caller: CallerDep, after: After = None, limit: Limit = 20) -> ListObject[CheckObject]:
    """List the project's checks without their results, newest first."""
    return as_list(await checks.page(ctx, caller, after=after, limit=limit), CheckObject.of)


@router.get("/{check_id}", operation_id="retrieveFineTuningCheck")
async def retrieve(ctx: ContextDep, caller: CallerDep, check_id: CheckId) -> CheckObject:
    """Get a check with its result."""
    return CheckObject.of(await checks.retrieve(ctx, caller, check_id))


@router.delete("/{check_id}", operation_id="deleteFineTuningCheck")
async def delete(ctx: ContextDep, caller: CallerDep, check_id: CheckId) -> CheckDeleted:
    """Delete a check; one that has not ended ends."""
    await checks.delete(ctx, caller, check_id)
    return CheckDeleted(id=check_id)


@router.get("/{check_id}/rows", operation_id="rowsFineTuningCheck")
async def rows(
    ctx: ContextDep,
    caller: CallerDep,
    check_id: CheckId,
    start: FirstRow = 0,
    limit: RowLimit = 20,
    file: File = "training_file",
) -> CheckRows:
    """Get the mask of some rows: their text as the base reads it, in pieces that are trained or not."""
    return CheckRows.of(await checks.rows(ctx, caller, check_id, start=start, limit=limit, param=file))
