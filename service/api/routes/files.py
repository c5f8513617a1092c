"""/v1/files: from the wire to `operations.files` and back. Bytes stream both ways."""

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from service.api.schemas.fields import Text
from service.api.schemas.files import UPLOAD_BODY, FileDeleted, FileObject
from service.api.web import upload_form
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.pagination import LONGEST_FILES_PAGE, After, CursorList, FilesLimit, as_cursor_list
from service.domain.json import JsonObject
from service.operations import files

router = APIRouter(prefix="/files", tags=["Files"], route_class=ApiRoute)

FileId = Annotated[Text, Path(description="The id of the file.")]
Order = Annotated[Literal["asc", "desc"], Query(description="`desc`: newest first.")]
Purpose = Annotated[Text | None, Query(description="Only files with this purpose.")]
CONTENT: dict[int | str, JsonObject] = {
    200: {
        "description": "The file's bytes",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    307: {"description": "Where the bytes are, for some minutes; only of installations that redirect downloads"},
}


@router.post("", operation_id="createFile", openapi_extra={"requestBody": UPLOAD_BODY})
async def create(ctx: ContextDep, caller: CallerDep, request: Request) -> FileObject:
    """Upload a file, which other endpoints take by its id."""
    async with files.incoming(ctx) as incoming:
        new = await upload_form.receive(request, incoming, ctx.settings.file_limit_bytes)
        return FileObject.of(await incoming.create(caller, new))


@router.get("", operation_id="listFiles")
async def page(
    ctx: ContextDep,
    caller: CallerDep,
    purpose: Purpose = None,
    limit: FilesLimit = LONGEST_FILES_PAGE,
    order: Order = "desc",
    after: After = None,
) -> CursorList[FileObject]:
    """List the project's files."""
    found = await files.page(ctx, caller, purpose=purpose, after=after, limit=limit, ascending=order == "asc")
    return as_cursor_list(found, FileObject.of, lambda file: file.id)


@router.get("/{file_id}", operation_id="retrieveFile")
async def retrieve(ctx: ContextDep, caller: CallerDep, file_id: FileId) -> FileObject:
    """Get what is known of a file."""
    return FileObject.of(await files.retrieve(ctx, caller, file_id))


@router.delete("/{file_id}", operation_id="deleteFile")
async def delete(ctx: ContextDep, caller: CallerDep, file_id: FileId) -> FileDeleted:
    """Delete a file. Jobs that wait for it fail; running ones go on."""
    await files.delete(ctx, caller, file_id)
    return FileDeleted(id=file_id)


@router.get("/{file_id}/content", operation_id="downloadFile", response_class=StreamingResponse, responses=CONTENT)
async def content(ctx: ContextDep, caller: CallerDep, file_id: FileId) -> Response:
    """Download a file's bytes."""
    if (url := await files.download_url(ctx, caller, file_id)) is not None:
        return RedirectResponse(url)
    file, chunks = await files.content(ctx, caller, file_id)
    headers = {"Content-Length": str(file.bytes), "Content-Disposition": _attachment(file.filename)}
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


def _attachment(filename: str) -> str:
    """RFC 6266: a plain name for old clients, the true one in UTF-8."""
    plain = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\' else "_" for letter in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
