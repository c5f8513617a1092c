"""The form of POST /v1/files: its file goes to storage while it streams in, its fields may come before or after.

Whatever is wrong with the form is said before anything becomes a file.
"""

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.api.schemas.files import UploadFields
from service.api.web.multipart import FormReader, Part, boundary_of
from service.domain.errors import InvalidRequest
from service.domain.json import JsonObject
from service.operations.files import Incoming, NewFile, too_large

FIELDS_BYTES = 256 * 1024  # what a form may have beside its file
FILENAME_CHARACTERS = 512

Fields = JsonObject


async def receive(request: Request, incoming: Incoming, limit_bytes: int) -> NewFile:
    """Stores the form's file and answers what the form says of it. Raises InvalidRequest or TooLarge."""
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
        if file is not None:
            raise InvalidRequest("The form has two files; send one per request.", param="file")
        file = part
        await incoming.store(part.chunks())
    return file, fields


def _check_length(content_length: str, limit_bytes: int) -> None:
    """Refuses a body that says itself that it is too large, before any of it is read."""
    if content_length.isdigit() and int(content_length) > limit_bytes + FIELDS_BYTES:
        raise too_large(limit_bytes)


def _set(fields: Fields, name: str, value: str) -> None:
    """`expires_after[seconds]` is a field of a field."""
    outer, bracket, inner = name.partition("[")
    if not bracket:
        fields[name] = value
    elif isinstance(nested := fields.setdefault(outer, {}), dict):
        nested[inner.rstrip("]")] = value


def _checked(fields: Fields) -> UploadFields:
    try:
        return UploadFields.model_validate(fields)
    except ValidationError as error:
        findings = [{**finding, "loc": ("body", *finding["loc"])} for finding in error.errors()]
        raise RequestValidationError(findings, body=fields) from error
