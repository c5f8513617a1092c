"""/v1/api_keys, for admins: from the wire to `operations.keys` and back."""

from typing import Annotated

from fastapi import APIRouter, Path

from service.api.schemas.fields import Text
from service.api.schemas.keys import ApiKeyDeleted, ApiKeyObject, ApiKeyWithValue, CreateApiKey
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.pagination import After, CursorList, Limit, as_cursor_list
from service.operations import keys

router = APIRouter(tags=["API keys"], route_class=ApiRoute)

PATH = "/api_keys"
Id = Annotated[Text, Path(description="The id of the key, which is not the secret.")]


@router.post(PATH, operation_id="createApiKey")
async def create(ctx: ContextDep, caller: CallerDep, body: CreateApiKey) -> ApiKeyWithValue:
    """Create an API key, with an admin's; the response alone has its secret."""
    return ApiKeyWithValue.with_value(await keys.create(ctx, caller, body.project, body.role, body.name))


@router.get(PATH, operation_id="listApiKeys")
async def page(ctx: ContextDep, caller: CallerDep, after: After = None, limit: Limit = 20) -> CursorList[ApiKeyObject]:
    """List the API keys of all projects, with an admin's, newest first."""
    found = await keys.page(ctx, caller, after=after, limit=limit)
    return as_cursor_list(found, ApiKeyObject.of, lambda key: key.id)


@router.get(PATH + "/{key_id}", operation_id="retrieveApiKey")
async def retrieve(ctx: ContextDep, caller: CallerDep, key_id: Id) -> ApiKeyObject:
    """Get an API key, with an admin's."""
    return ApiKeyObject.of(await keys.retrieve(ctx, caller, key_id))


@router.delete(PATH + "/{key_id}", operation_id="deleteApiKey")
async def delete(ctx: ContextDep, caller: CallerDep, key_id: Id) -> ApiKeyDeleted:
    """Revoke an API key, with an admin's: at most 5 seconds later it is worth nothing."""
    await keys.revoke(ctx, caller, key_id)
    return ApiKeyDeleted(id=key_id)
