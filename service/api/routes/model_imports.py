"""POST /v1/models and /v1/model_imports: from the wire to `operations.model_imports` and back. Bytes stream to storage.

The files of a request become files of the project first; the import deletes them when it has ended.
"""

from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.api.schemas.errors import QUOTA
from service.api.schemas.fields import Text
from service.api.schemas.model_imports import IMPORT_BODY, ImportFields, ModelImportObject
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.multipart import FormReader, boundary_of
from service.api.web.pagination import After, Limit, ListObject, as_list
from service.domain.errors import InvalidRequest
from service.domain.model_import import ARCHIVE, CONFIG, WEIGHTS, ModelImport
from service.installation.context import Context
from service.operations import files, model_imports, quotas
from service.operations.files import NewFile
from service.operations.keys import Caller
from service.operations.model_imports import NewImport, too_large

router = APIRouter(tags=["Models"], route_class=ApiRoute)

ImportId = Annotated[Text, Path(description="The id of the import.")]
PARTS = {"file": ARCHIVE, "adapter_config": CONFIG, "adapter_model": WEIGHTS}
FORM_BYTES = 256 * 1024  # what the form has around its files
PURPOSE = "user_data"
LIFE_SECONDS = 7 * 24 * 3600  # of the files, should nobody ever read them


@router.post("/models", operation_id="createModel", responses=QUOTA, openapi_extra={"requestBody": IMPORT_BODY})
async def create(ctx: ContextDep, caller: CallerDep, request: Request) -> ModelImportObject:
    """Import a LoRA adapter of one's own, as PEFT saves it; once the import has ended, it names the model."""
    length = request.headers.get("content-length", "")
    limit_bytes = min(ctx.settings.import_limit_bytes, ctx.settings.file_limit_bytes)
    if length.isdigit() and int(length) > limit_bytes + FORM_BYTES:
        raise too_large(limit_bytes, "file")
    await quotas.check_room(ctx, caller, max(0, int(length) - FORM_BYTES) if length.isdigit() else 0)
    boundary = boundary_of(request.headers.get("content-type", ""))
    reader = FormReader(request.stream(), boundary, limit_bytes + FORM_BYTES)
    return ModelImportObject.of(await _receive(ctx, caller, reader))


@router.get("/model_imports", operation_id="listModelImports")
async def page(
    ctx: ContextDep, caller: CallerDep, after: After = None, limit: Limit = 20
) -> ListObject[ModelImportObject]:
    """List the project's imports of models, newest first."""
    return as_list(await model_imports.page(ctx, caller, after=after, limit=limit), ModelImportObject.of)


@router.get("/model_imports/{import_id}", operation_id="retrieveModelImport")
async def retrieve(ctx: ContextDep, caller: CallerDep, import_id: ImportId) -> ModelImportObject:
    """Get an import: its status, and the model's name or what is wrong with the adapter."""
    return ModelImportObject.of(await model_imports.retrieve(ctx, caller, import_id))


async def _receive(ctx: Context, caller: Caller, reader: FormReader) -> ModelImport:
    """Stores the form's files, then creates the import. Nothing stays of a request that is refused."""
    fields: dict[str, str] = {}
    created: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        received: dict[str, files.Incoming] = {}
        async for part in reader.parts():
            if part.name not in PARTS:
                fields[part.name] = await part.text()
                continue
            name = PARTS[part.name]
            received[name] = await stack.enter_async_context(files.incoming(ctx))
            await received[name].store(part.chunks(), PURPOSE)
        checked = _checked(fields)
        try:
            for name, incoming in received.items():
                new = NewFile(name, PURPOSE, life_seconds=LIFE_SECONDS)
                created[name] = (await incoming.create(caller, new)).id
            named = {**created} if checked.file_id is None else {**created, ARCHIVE: checked.file_id}
            if checked.file_id is not None and created:
                raise InvalidRequest("Send an adapter or name one as 'file_id', not both.", param="file_id")
            wanted = NewImport(checked.base, named, checked.suffix, owns_files=checked.file_id is None)
            return await model_imports.create(ctx, caller, wanted)
        except BaseException:
            for id in created.values():
                await files.delete(ctx, caller, id)
            raise


def _checked(fields: dict[str, str]) -> ImportFields:
    try:
        return ImportFields.model_validate(fields)
    except ValidationError as error:
        findings = [{**finding, "loc": ("body", *finding["loc"])} for finding in error.errors()]
        raise RequestValidationError(findings, body=fields) from error
