"""/v1/uploads: from the wire to `operations.uploads` and back. A part's bytes are stored while they stream in."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from service.api.schemas.errors import QUOTA
from service.api.schemas.fields import Text
from service.api.schemas.uploads import PART_BODY, CompleteUpload, CreateUpload, UploadObject, UploadPartObject
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.multipart import FormReader, boundary_of
from service.domain.errors import InvalidRequest
from service.domain.upload import PART_LIMIT_BYTES
from service.operations import uploads
from service.operations.uploads import IncomingPart, NewUpload, part_too_large

router = APIRouter(prefix="/uploads", tags=["Uploads"], route_class=ApiRoute)

UploadId = Annotated[Text, Path(description="The id of the upload.")]
FORM_BYTES = 1024 * 1024  # what the form has around its part, and more than any server passes on at once


@router.post("", operation_id="createUpload", responses=QUOTA)
async def create(ctx: ContextDep, caller: CallerDep, body: CreateUpload) -> UploadObject:
    """Create an upload, which takes parts for an hour."""
    new = NewUpload(
        filename=body.filename,
        purpose=body.purpose,
        content_type=body.mime_type,
        bytes=body.bytes,
        life_seconds=body.expires_after.seconds if body.expires_after is not None else None,
    )
    return UploadObject.of(await uploads.create(ctx, caller, new))


@router.post("/{upload_id}/parts", operation_id="addUploadPart", openapi_extra={"requestBody": PART_BODY})
async def add_part(ctx: ContextDep, caller: CallerDep, upload_id: UploadId, request: Request) -> UploadPartObject:
    """Add a part to a pending upload. Parts may come in any order, and in parallel."""
    async with uploads.incoming_part(ctx, caller, upload_id) as incoming:
        await _receive(request, incoming)
        return UploadPartObject.of(await incoming.add())


@router.post("/{upload_id}/complete", operation_id="completeUpload", responses=QUOTA)
async def complete(ctx: ContextDep, caller: CallerDep, upload_id: UploadId, body: CompleteUpload) -> UploadObject:
    """Make a file of the parts, in the order in which they are named. Parts that are not named are removed."""
    return UploadObject.of(*await uploads.complete(ctx, caller, upload_id, body.part_ids, body.md5))


@router.post("/{upload_id}/cancel", operation_id="cancelUpload")
async def cancel(ctx: ContextDep, caller: CallerDep, upload_id: UploadId) -> UploadObject:
    """Cancel a pending upload and remove its parts."""
    return UploadObject.of(await uploads.cancel(ctx, caller, upload_id))


async def _receive(request: Request, incoming: IncomingPart) -> None:
    """Stores the form's `data`. An error of the form is raised before anything becomes a part."""
    boundary = boundary_of(request.headers.get("content-type", ""))
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > PART_LIMIT_BYTES + FORM_BYTES:
        raise part_too_large()
    stored = False
    async for part in FormReader(request.stream(), boundary, PART_LIMIT_BYTES + FORM_BYTES).parts():
        if part.name != "data":
            raise InvalidRequest(f"Unknown parameter: '{part.name}'.", param=part.name, code="unknown_parameter")
        await incoming.store(part.chunks())
        stored = True
    if not stored:
        raise InvalidRequest("Missing required parameter: 'data'.", param="data", code="missing_required_parameter")
