"""Webhook endpoints on the wire, as openai-python 3.52.0 has them; `status` and the two fields after it are ours."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from service.api.schemas.fields import Text, Wire
from service.domain.webhook import EVENT_TYPES, WebhookEndpoint, hint

Name = Annotated[Text, StringConstraints(min_length=1, max_length=256)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[^\x00]*$")]
EventTypes = Annotated[list[Text], Field(min_length=1, max_length=64)]
Status = Literal["enabled", "disabled"]


class CreateWebhookEndpoint(Wire):
    event_types: EventTypes = Field(description=f"What to send: {', '.join(EVENT_TYPES)}.")
    name: Name
    url: Url = Field(description="An https URL; its host must have public addresses only.")


class UpdateWebhookEndpoint(Wire):
    """What is left out stays as it is."""

    event_types: EventTypes | None = None
    name: Name | None = None
    url: Url | None = None
    status: Status | None = Field(None, description="`enabled` lets a disabled endpoint receive events again.")


class RotateWebhookSecret(Wire):
    keep_old_secret_active_for_24_hours: bool = Field(
        False, description="Sign with both secrets for a day, so that receivers can change over."
    )


class TestWebhookEndpoint(Wire):
    event_type: Text


class WebhookEndpointObject(BaseModel):
    """An endpoint; a disabled one is sent nothing, and says why."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    status: Status
    disabled_at: int | None
    disabled_reason: str | None

    @classmethod
    def of(cls, endpoint: WebhookEndpoint) -> "WebhookEndpointObject":
        return cls(
            id=endpoint.id,
            created_at=endpoint.created_at,
            updated_at=endpoint.updated_at,
            name=endpoint.name,
            url=endpoint.url,
            event_types=list(endpoint.event_types),
            signing_secret_hint=hint(endpoint.secret),
            status="enabled" if endpoint.disabled_at is None else "disabled",
            disabled_at=endpoint.disabled_at,
            disabled_reason=endpoint.disabled_reason,
        )


class WebhookEndpointWithSecret(WebhookEndpointObject):
    """The response to a creation and a rotation: the secret is shown here and never again."""

    signing_secret: str

    @classmethod
    def of(cls, endpoint: WebhookEndpoint) -> "WebhookEndpointWithSecret":
        return cls(**WebhookEndpointObject.of(endpoint).model_dump(), signing_secret=endpoint.secret)


class WebhookEndpointTestResult(BaseModel):
    """The endpoint has responded; `status_code` says how."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class WebhookEndpointDeleted(BaseModel):
    """The response to a deletion."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


class WebhookEventTypes(BaseModel):
    """Every event type of this installation."""

    object: Literal["list"] = "list"
    data: list[str]
