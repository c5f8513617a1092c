"""/v1/models: from the wire to `operations.models` and back. Names contain `:` and may contain `/`."""

import base64
import re
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from service.api.schemas.fields import Text
from service.api.schemas.models import ModelDeleted, ModelList, ModelMergeObject, ModelObject
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.domain.json import JsonObject
from service.domain.model_merge import ModelMerge
from service.operations import merged_content, model_content, models
from service.operations.merged_content import MergedContent
from service.operations.model_content import ModelContent

router = APIRouter(prefix="/models", tags=["Models"], route_class=ApiRoute)

ModelName = Annotated[Text, Path(description="The id of the model.")]
Format = Annotated[
    Literal["peft", "merged"],
    Query(
        description="`peft`: the files that PEFT reads, and the manifest; `merged`: a folder that transformers loads, "
        "with what was learned in the base's own weights, which is made at the first request."
    ),
]
CONTENT: dict[int | str, JsonObject] = {
    200: {
        "description": "A zip archive of the model's files and their manifest, the same bytes each time",
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    },
    202: {
        "description": "The merged model is being made: ask again after `Retry-After` seconds",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ModelMergeObject"}}},
    },
    206: {"description": "The archive from the byte on that `Range: bytes=N-` names"},
    416: {"description": "The archive has fewer bytes than `Range` says"},
}
RETRY_SECONDS = 2
_RANGE = re.compile(r"bytes=([0-9]{1,15})-")  # another one, or several, gets the whole archive: HTTP allows that


@router.get("", operation_id="listModels")
async def list_all(ctx: ContextDep, caller: CallerDep) -> ModelList:
    """List the models that the project may call: bases, then its own."""
    return ModelList(data=[ModelObject.of(model) for model in await models.list_all(ctx, caller)])


@router.get(
    "/{model:path}/content", operation_id="downloadModelContent", response_class=StreamingResponse, responses=CONTENT
)
async def content(
    ctx: ContextDep, caller: CallerDep, model: ModelName, request: Request, format: Format = "peft"
) -> Response:
    """Download a tuned model's artifact as a zip archive, whole or from a byte on."""
    if format == "merged":
        merged = await merged_content.find(ctx, caller, model)
        if isinstance(merged, MergedContent) and not await merged_content.is_stored(merged):
            merged = await merged_content.begin_again(ctx, caller, merged)
        if isinstance(merged, ModelMerge):
            pending = ModelMergeObject.of(merged)
            return JSONResponse(pending.model_dump(), status_code=202, headers={"Retry-After": str(RETRY_SECONDS)})
        digest = base64.b64encode(bytes.fromhex(merged.sha256)).decode()
        return _sent(request, merged, {"Repr-Digest": f"sha-256=:{digest}:"})  # RFC 9530
    found = await model_content.find(ctx, caller, model)
    return _sent(request, found, {"Luthier-Manifest-Sha256": found.sha256})


def _sent(request: Request, found: ModelContent | MergedContent, more: Mapping[str, str]) -> Response:
    """The archive, or what is left of it."""
    length, tag = found.num_bytes, f'"{found.sha256}"'
    headers = {"Content-Disposition": f'attachment; filename="{quote(found.model, safe="")}.zip"', "ETag": tag, **more}
    if length is None:
        return StreamingResponse(found.chunks(), media_type="application/zip", headers=headers)
    headers["Accept-Ranges"] = "bytes"
    start = _start(request.headers, tag)
    if start >= length:
        headers["Content-Range"] = f"bytes */{length}"
        return Response(status_code=416, headers=headers)
    headers["Content-Length"] = str(length - start)
    if start:
        headers["Content-Range"] = f"bytes {start}-{length - 1}/{length}"
    return StreamingResponse(
        found.chunks(start), status_code=206 if start else 200, media_type="application/zip", headers=headers
    )


@router.get("/{model:path}", operation_id="retrieveModel")
async def retrieve(ctx: ContextDep, caller: CallerDep, model: ModelName) -> ModelObject:
    """Get one model."""
    return ModelObject.of(await models.retrieve(ctx, caller, model))


@router.delete("/{model:path}", operation_id="deleteModel")
async def delete(ctx: ContextDep, caller: CallerDep, model: ModelName) -> ModelDeleted:
    """Delete one of the project's own fine-tuned models."""
    await models.delete(ctx, caller, model)
    return ModelDeleted(id=model)


def _start(headers: Mapping[str, str], tag: str) -> int:
    """The byte that a download continues from; 0 where it begins, or where the client has begun another archive."""
    found = _RANGE.fullmatch(headers.get("range", ""))
    return int(found[1]) if found is not None and headers.get("if-range", tag) == tag else 0
