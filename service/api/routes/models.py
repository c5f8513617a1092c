"""/v1/models: from the wire to `operations.models` and back. Names contain `:` and may contain `/`."""

from typing import Annotated

from fastapi import APIRouter, Path

from service.api.schemas.fields import Text
from service.api.schemas.models import ModelDeleted, ModelList, ModelObject
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.operations import models

router = APIRouter(prefix="/models", tags=["Models"], route_class=ApiRoute)

ModelName = Annotated[Text, Path(description="The id of the model.")]


@router.get("", operation_id="listModels")
async def list_all(ctx: ContextDep, caller: CallerDep) -> ModelList:
    """List the models that the project may call: bases, then its own."""
    return ModelList(data=[ModelObject.of(model) for model in await models.list_all(ctx, caller)])


@router.get("/{model:path}", operation_id="retrieveModel")
async def retrieve(ctx: ContextDep, caller: CallerDep, model: ModelName) -> ModelObject:
    """Get one model."""
    return ModelObject.of(await models.retrieve(ctx, caller, model))


@router.delete("/{model:path}", operation_id="deleteModel")
async def delete(ctx: ContextDep, caller: CallerDep, model: ModelName) -> ModelDeleted:
    """Delete one of the project's own fine-tuned models."""
    await models.delete(ctx, caller, model)
    return ModelDeleted(id=model)
