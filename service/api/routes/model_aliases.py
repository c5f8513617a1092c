"""/v1/model_aliases: from the wire to `operations.model_aliases` and back."""

from typing import Annotated

from fastapi import APIRouter, Body, Path

from service.api.schemas.errors import QUOTA
from service.api.schemas.fields import Text
from service.api.schemas.model_aliases import (
    CreateModelAlias,
    ModelAliasChangeObject,
    ModelAliasDeleted,
    ModelAliasObject,
    PromoteModelAlias,
    RollBackModelAlias,
    UpdateModelAlias,
)
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.pagination import After, CursorList, Limit, as_cursor_list
from service.operations import model_aliases
from service.operations.model_aliases import AliasUpdate

router = APIRouter(prefix="/model_aliases", tags=["Model aliases"], route_class=ApiRoute)

Name = Annotated[Text, Path(description="The name of the model alias.")]
Promotion = Annotated[PromoteModelAlias, Body(default_factory=PromoteModelAlias)]  # a request without a body is fine
Rollback = Annotated[RollBackModelAlias, Body(default_factory=RollBackModelAlias)]


@router.post("", operation_id="createModelAlias", responses=QUOTA)
async def create(ctx: ContextDep, caller: CallerDep, body: CreateModelAlias) -> ModelAliasObject:
    """Create a name that stands for a model and can be moved."""
    candidate = None if body.candidate is None else body.candidate.chosen()
    return ModelAliasObject.of(await model_aliases.create(ctx, caller, body.name, body.model, candidate))


@router.get("", operation_id="listModelAliases")
async def page(
    ctx: ContextDep, caller: CallerDep, after: After = None, limit: Limit = 20
) -> CursorList[ModelAliasObject]:
    """List the project's model aliases, newest first."""
    found = await model_aliases.page(ctx, caller, after=after, limit=limit)
    return as_cursor_list(found, ModelAliasObject.of, lambda alias: alias.id)


@router.get("/{name}", operation_id="retrieveModelAlias")
async def retrieve(ctx: ContextDep, caller: CallerDep, name: Name) -> ModelAliasObject:
    """Get a model alias."""
    return ModelAliasObject.of(await model_aliases.retrieve(ctx, caller, name))


@router.post("/{name}", operation_id="updateModelAlias")
async def update(ctx: ContextDep, caller: CallerDep, name: Name, body: UpdateModelAlias) -> ModelAliasObject:
    """Move a model alias, or begin, change or end its canary."""
    ends_canary = "candidate" in body.model_fields_set and body.candidate is None
    candidate = None if body.candidate is None else body.candidate.chosen()
    asked = AliasUpdate(body.model, candidate, ends_canary)
    return ModelAliasObject.of(await model_aliases.update(ctx, caller, name, asked))


@router.delete("/{name}", operation_id="deleteModelAlias")
async def delete(ctx: ContextDep, caller: CallerDep, name: Name) -> ModelAliasDeleted:
    """Delete a model alias; the models that it stood for stay."""
    await model_aliases.delete(ctx, caller, name)
    return ModelAliasDeleted(id=name)


@router.post("/{name}/promote", operation_id="promoteModelAlias")
async def promote(ctx: ContextDep, caller: CallerDep, name: Name, body: Promotion) -> ModelAliasObject:
    """Move a model alias to a model, or to its candidate; a canary ends."""
    return ModelAliasObject.of(await model_aliases.promote(ctx, caller, name, body.model))


@router.post("/{name}/rollback", operation_id="rollbackModelAlias")
async def rollback(ctx: ContextDep, caller: CallerDep, name: Name, body: Rollback) -> ModelAliasObject:
    """Take the last move back: end the canary if there is one, else return to the model before."""
    return ModelAliasObject.of(await model_aliases.rollback(ctx, caller, name, body.current_model))


@router.get("/{name}/history", operation_id="listModelAliasHistory")
async def history(
    ctx: ContextDep, caller: CallerDep, name: Name, after: After = None, limit: Limit = 20
) -> CursorList[ModelAliasChangeObject]:
    """List the changes of a model alias, newest first: what, when, and with whose key."""
    found = await model_aliases.history(ctx, caller, name, after=after, limit=limit)
    return as_cursor_list(found, ModelAliasChangeObject.of, lambda change: change.id)
