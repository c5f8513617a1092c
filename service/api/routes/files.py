"""/v1/files: from the wire to `operations.files` and back. Bytes stream both ways.

An upload is stored while it streams in; its fields may come before or after the file. An error of the form is raised
before anything becomes a file.
"""

import re
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from pydantic import ValidationError

from service.api.schemas.errors import QUOTA
from service.api.schemas.fields import Text
from service.api.schemas.files import UPLOAD_BODY, FileDeleted, FileObject, UploadFields
from service.api.web.auth import ApiRoute
from service.api.web.base64_form import asks_for_csv, base64_bytes, in_base64
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.multipart import FormReader, Part, boundary_of, sent_twice
from service.api.web.pagination import LONGEST_FILES_PAGE, After, CursorList, FilesLimit, as_cursor_list
from service.domain.errors import InvalidRequest
from service.domain.file import RESULT_PURPOSE
from service.domain.json import JsonObject
from service.installation.context import Context
from service.operations import files, quotas
from service.operations.files import Incoming, NewFile, too_large
from service.operations.keys import Caller

router = APIRouter(prefix="/files", tags=["Files"], route_class=ApiRoute)

FileId = Annotated[Text, Path(description="The id of the file.")]
Order = Annotated[Literal["asc", "desc"], Query(description="`desc`: newest first.")]
Purpose = Annotated[Text | None, Query(description="Only files with this purpose.")]
CONTENT: dict[int | str, JsonObject] = {
    200: {
        "description": "The file's bytes",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    307: {"description": "A URL of the bytes, valid for some minutes; only on installations that redirect downloads"},
}

FIELDS_BYTES = 256 * 1024  # of a form, in addition to its file
FILENAME_CHARACTERS = 512
NESTED = re.compile(r"([^\[\]]+)\[([^\[\]]+)\]")

Fields = JsonObject


@router.post("", operation_id="createFile", responses=QUOTA, openapi_extra={"requestBody": UPLOAD_BODY})
async def create(ctx: ContextDep, caller: CallerDep, request: Request) -> FileObject:
    """Upload a file, which other endpoints take by its id.

    Of a file with the purpose `fine-tune`, each line is checked while it is received: where one is not a JSON object,
    the file is kept, its `status` is `error` and `status_details` says what is wrong with which lines. Files with other
    purposes are not checked, nor are those that `/v1/uploads` makes of parts, which come in any order. What a job needs
    of rows is checked when the job, or a check, is created.
    """
    length = request.headers.get("content-length", "")
    await quotas.check_room(ctx, caller, max(0, int(length) - FIELDS_BYTES) if length.isdigit() else 0)
    async with files.incoming(ctx) as incoming:
        new = await _received(request, incoming, ctx.settings.file_limit_bytes)
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
    """Get a file's metadata."""
    return FileObject.of(await files.retrieve(ctx, caller, file_id))


@router.delete("/{file_id}", operation_id="deleteFile")
async def delete(ctx: ContextDep, caller: CallerDep, file_id: FileId) -> FileDeleted:
    """Delete a file. Jobs that wait for it fail; running ones continue."""
    await files.delete(ctx, caller, file_id)
    return FileDeleted(id=file_id)


@router.get("/{file_id}/content", operation_id="downloadFile", response_class=StreamingResponse, responses=CONTENT)
async def content(ctx: ContextDep, caller: CallerDep, file_id: FileId, request: Request) -> Response:
    """Download a file's bytes. A result file is sent in base64, as by OpenAI; to `Accept: text/csv` as it is."""
    encoded = await _sent_encoded(ctx, caller, file_id, request)
    if not encoded and (url := await files.download_url(ctx, caller, file_id)) is not None:
        return RedirectResponse(url)
    file, chunks = await files.content(ctx, caller, file_id)
    headers = {"Content-Disposition": _attachment(file.filename), "Vary": "Accept"}
    if encoded:
        headers["Content-Length"] = str(base64_bytes(file.bytes))
        return StreamingResponse(in_base64(chunks), media_type="text/plain", headers=headers)
    headers["Content-Length"] = str(file.bytes)
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


async def _sent_encoded(ctx: Context, caller: Caller, file_id: str, request: Request) -> bool:
    """Whether the caller gets the file in base64."""
    if ctx.settings.result_files == "csv" or asks_for_csv(request.headers.getlist("accept")):
        return False
    return (await files.retrieve(ctx, caller, file_id)).purpose == RESULT_PURPOSE


def _attachment(filename: str) -> str:
    """RFC 6266: an ASCII name for old clients, the real one in UTF-8."""
    plain = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\' else "_" for letter in filename
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


async def _received(request: Request, incoming: Incoming, limit_bytes: int) -> NewFile:
    """Stores the form's file and returns the metadata that the form has for it. Raises InvalidRequest or TooLarge."""
    boundary = boundary_of(request.headers.get("content-type", ""))
    _check_length(request.headers.get("content-length", ""), limit_bytes)
    reader = FormReader(request.stream(), boundary, limit_bytes + FIELDS_BYTES)
    file, fields = await _read(reader, incoming)
    if file is None:
        raise InvalidRequest("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
    checked = _checked(fields)
    return NewFile(
        filename=file.filename[:FILENAME_CHARACTERS] if file.filename else "upload",
        purpose=checked.purpose,
        content_type=file.content_type,
        life_seconds=checked.expires_after.seconds if checked.expires_after is not None else None,
    )


async def _read(reader: FormReader, incoming: Incoming) -> tuple[Part | None, Fields]:
    file: Part | None = None
    fields: Fields = {}
    async for part in reader.parts():
        if part.name != "file":
            _set(fields, part.name, await part.text())
            continue
        file = part
        await incoming.store(part.chunks(), fields.get("purpose"))
    return file, fields


def _check_length(content_length: str, limit_bytes: int) -> None:
    """Rejects a body whose Content-Length is too large, before reading any of it."""
    if content_length.isdigit() and int(content_length) > limit_bytes + FIELDS_BYTES:
        raise too_large(limit_bytes)


def _set(fields: Fields, name: str, value: str) -> None:
    """`expires_after[seconds]` is a field of a field. Raises InvalidRequest where `expires_after` has a value, too."""
    nested = NESTED.fullmatch(name)
    outer, inner = (nested[1], nested[2]) if nested else (name, None)
    kept = fields.get(outer, {})
    if inner is not None and isinstance(kept, dict):
        fields[outer] = {**kept, inner: value}
    elif outer not in fields:
        fields[outer] = value
    else:
        raise sent_twice(outer)


def _checked(fields: Fields) -> UploadFields:
    try:
        return UploadFields.model_validate(fields)
    except ValidationError as error:
        findings = [{**finding, "loc": ("body", *finding["loc"])} for finding in error.errors()]
        raise RequestValidationError(findings, body=fields) from error
