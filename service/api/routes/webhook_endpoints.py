"""/v1/webhook_endpoints: from the wire to `operations.webhook_endpoints` and back."""

from typing import Annotated

from fastapi import APIRouter, Body, Path

from service.api.schemas.errors import QUOTA
from service.api.schemas.fields import Text
from service.api.schemas.webhook_endpoints import (
    CreateWebhookEndpoint,
    RotateWebhookSecret,
    TestWebhookEndpoint,
    UpdateWebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointObject,
    WebhookEndpointTestResult,
    WebhookEndpointWithSecret,
    WebhookEventTypes,
)
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.pagination import After, CursorList, Limit, as_cursor_list
from service.domain.webhook import EVENT_TYPES
from service.operations import webhook_deliveries, webhook_endpoints
from service.operations.webhook_endpoints import EndpointUpdate

router = APIRouter(tags=["Webhooks"], route_class=ApiRoute)

PATH = "/webhook_endpoints"
Id = Annotated[Text, Path(description="The id of the webhook endpoint.")]
Rotation = Annotated[RotateWebhookSecret, Body(default_factory=RotateWebhookSecret)]  # a request without a body is fine


@router.post(PATH, operation_id="createWebhookEndpoint", responses=QUOTA)
async def create(ctx: ContextDep, caller: CallerDep, body: CreateWebhookEndpoint) -> WebhookEndpointWithSecret:
    """Create an endpoint that events are sent to; the response alone has its secret."""
    made = await webhook_endpoints.create(ctx, caller, body.name, body.url, body.event_types)
    return WebhookEndpointWithSecret.of(made)


@router.get(PATH, operation_id="listWebhookEndpoints")
async def page(
    ctx: ContextDep, caller: CallerDep, after: After = None, limit: Limit = 20
) -> CursorList[WebhookEndpointObject]:
    """List the project's webhook endpoints, newest first."""
    found = await webhook_endpoints.page(ctx, caller, after=after, limit=limit)
    return as_cursor_list(found, WebhookEndpointObject.of, lambda endpoint: endpoint.id)


@router.get("/webhook_event_types", operation_id="listWebhookEventTypes")
async def event_types(caller: CallerDep) -> WebhookEventTypes:
    """List the events that are sent."""
    return WebhookEventTypes(data=list(EVENT_TYPES))


@router.get(PATH + "/{webhook_endpoint_id}", operation_id="retrieveWebhookEndpoint")
async def retrieve(ctx: ContextDep, caller: CallerDep, webhook_endpoint_id: Id) -> WebhookEndpointObject:
    """Get a webhook endpoint."""
    return WebhookEndpointObject.of(await webhook_endpoints.retrieve(ctx, caller, webhook_endpoint_id))


@router.post(PATH + "/{webhook_endpoint_id}", operation_id="updateWebhookEndpoint")
async def update(
    ctx: ContextDep, caller: CallerDep, webhook_endpoint_id: Id, body: UpdateWebhookEndpoint
) -> WebhookEndpointObject:
    """Change a webhook endpoint, or enable one that was disabled."""
    enabled = None if body.status is None else body.status == "enabled"
    asked = EndpointUpdate(body.name, body.url, body.event_types, enabled)
    return WebhookEndpointObject.of(await webhook_endpoints.update(ctx, caller, webhook_endpoint_id, asked))


@router.delete(PATH + "/{webhook_endpoint_id}", operation_id="deleteWebhookEndpoint")
async def delete(ctx: ContextDep, caller: CallerDep, webhook_endpoint_id: Id) -> WebhookEndpointDeleted:
    """Delete a webhook endpoint; nothing more is sent to it."""
    await webhook_endpoints.delete(ctx, caller, webhook_endpoint_id)
    return WebhookEndpointDeleted(id=webhook_endpoint_id)


@router.post(PATH + "/{webhook_endpoint_id}/rotate_secret", operation_id="rotateSecretOfWebhookEndpoint")
async def rotate_secret(
    ctx: ContextDep, caller: CallerDep, webhook_endpoint_id: Id, body: Rotation
) -> WebhookEndpointWithSecret:
    """Replace the secret of a webhook endpoint; the response alone has the new one."""
    keep_old = body.keep_old_secret_active_for_24_hours
    found = await webhook_endpoints.rotate_secret(ctx, caller, webhook_endpoint_id, keep_old=keep_old)
    return WebhookEndpointWithSecret.of(found)


@router.post(PATH + "/{webhook_endpoint_id}/test", operation_id="testWebhookEndpoint")
async def test(
    ctx: ContextDep, caller: CallerDep, webhook_endpoint_id: Id, body: TestWebhookEndpoint
) -> WebhookEndpointTestResult:
    """Send a sample event to a webhook endpoint, and say what it responded."""
    status = await webhook_deliveries.try_endpoint(ctx, caller, webhook_endpoint_id, body.event_type)
    return WebhookEndpointTestResult(
        webhook_endpoint_id=webhook_endpoint_id, event_type=body.event_type, status_code=status
    )
