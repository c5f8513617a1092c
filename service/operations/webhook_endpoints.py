"""Webhook endpoints as their users see them: create, read, change, rotate the secret, delete, try. Sends nothing.

A secret is shown when it is made and never again. Events are in `service.domain.webhook`, deliveries in
`webhook_deliveries`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.db import webhooks
from service.db.connection import Transaction
from service.domain import ids
from service.domain.errors import InvalidRequest, NotFound, QuotaExceeded
from service.domain.webhook import EVENT_TYPES, OLD_SECRET_SECONDS, WebhookEndpoint, new_secret
from service.installation.context import Context
from service.operations.keys import Caller
from service.operations.paging import Page, cut
from service.webhooks.targets import check_url

DISABLED_BY_USER = "It was disabled by an update."


@dataclass(frozen=True)
class EndpointUpdate:
    """What to change; None stays as it is. `enabled` of True makes a disabled endpoint receive what happens next."""

    name: str | None = None
    url: str | None = None
    event_types: Sequence[str] | None = None
    enabled: bool | None = None


async def create(ctx: Context, caller: Caller, name: str, url: str, event_types: Sequence[str]) -> WebhookEndpoint:
    """Writes a new endpoint; its secret is in the result. Raises InvalidRequest or QuotaExceeded."""
    check_url(url, private=ctx.settings.webhook_private)
    now = int(time.time())
    made = WebhookEndpoint(
        ids.webhook_endpoint_id(), caller.project_id, name, url, _known(event_types), new_secret(), now, now
    )
    async with ctx.database.transaction() as tx:
        limit = ctx.settings.project_webhook_endpoints
        if await webhooks.count_endpoints(tx, caller.project_id) >= limit:
            raise QuotaExceeded(
                f"Your project has {limit:,} webhook endpoints, which is as many as it may have. Please delete some, "
                "or ask for a higher LUTHIER_PROJECT_WEBHOOK_ENDPOINTS."
            )
        await webhooks.add_endpoint(tx, made)
    return made


async def retrieve(ctx: Context, caller: Caller, id: str) -> WebhookEndpoint:
    """One endpoint. Raises NotFound."""
    async with ctx.database.reading() as tx:
        return await _find(tx, caller, id)


async def page(ctx: Context, caller: Caller, *, after: str | None, limit: int) -> Page[WebhookEndpoint]:
    """The project's endpoints, newest first, older than `after`."""
    async with ctx.database.reading() as tx:
        return cut(await webhooks.endpoint_page(tx, caller.project_id, after, limit + 1), limit)


async def update(ctx: Context, caller: Caller, id: str, asked: EndpointUpdate) -> WebhookEndpoint:
    """Changes the endpoint; what changes nothing leaves `updated_at` as it is. Raises NotFound or InvalidRequest."""
    if asked.url is not None:
        check_url(asked.url, private=ctx.settings.webhook_private)
    async with ctx.database.transaction() as tx:
        before = await _find(tx, caller, id, lock=True)
        after = replace(
            before,
            name=before.name if asked.name is None else asked.name,
            url=before.url if asked.url is None else asked.url,
            event_types=before.event_types if asked.event_types is None else _known(asked.event_types),
        )
        if asked.enabled is True:
            after = replace(after, disabled_at=None, disabled_reason=None)
        elif asked.enabled is False and before.disabled_at is None:
            after = replace(after, disabled_at=int(time.time()), disabled_reason=DISABLED_BY_USER)
        return await _write(tx, before, after)


async def rotate_secret(ctx: Context, caller: Caller, id: str, *, keep_old: bool) -> WebhookEndpoint:
    """A new secret, which is in the result; with `keep_old` requests are signed with both for 24 hours."""
    async with ctx.database.transaction() as tx:
        before = await _find(tx, caller, id, lock=True)
        until = int(time.time()) + OLD_SECRET_SECONDS
        after = replace(
            before,
            secret=new_secret(),
            old_secret=before.secret if keep_old else None,
            old_secret_until=until if keep_old else None,
        )
        return await _write(tx, before, after)


async def delete(ctx: Context, caller: Caller, id: str) -> None:
    """Ends the endpoint; what is on its way to it is not sent again. Raises NotFound."""
    async with ctx.database.transaction() as tx:
        await _find(tx, caller, id, lock=True)
        await webhooks.remove_endpoint(tx, id)


def check_event_types(event_types: Sequence[str], param: str = "event_types") -> None:
    """Raises InvalidRequest for one that is unknown."""
    for event_type in event_types:
        if event_type not in EVENT_TYPES:
            raise InvalidRequest(
                f"'{event_type}' is not an event type. The event types are: {', '.join(EVENT_TYPES)}.",
                param=param,
                code="invalid_value",
            )


def _known(event_types: Sequence[str]) -> list[str]:
    """Without repetitions. Raises InvalidRequest."""
    check_event_types(event_types)
    return list(dict.fromkeys(event_types))


async def _find(tx: Transaction, caller: Caller, id: str, *, lock: bool = False) -> WebhookEndpoint:
    found = await webhooks.find_endpoint(tx, caller.project_id, id, lock=lock)
    if found is None:
        raise NotFound(
            f"No such webhook endpoint: {id}", param="webhook_endpoint_id", code="webhook_endpoint_not_found"
        )
    return found


async def _write(tx: Transaction, before: WebhookEndpoint, after: WebhookEndpoint) -> WebhookEndpoint:
    if after == before:
        return before
    written = replace(after, updated_at=int(time.time()))
    changed = {name: value for name, value in vars(written).items() if value != vars(before)[name]}
    await webhooks.change_endpoint(tx, before.id, changed)
    return written
