"""Deliveries of webhooks as work: claimed by an API process, sent by `delivering`, and what comes of an attempt.

A delivery that has come to its receiver is done. One that has not is tried again, after a longer pause each time, for
three days; then it is given up, and its endpoint is disabled unless another delivery has come through meanwhile. The
user sees that in the endpoint and as a warning event of the job.
"""

import time
from dataclasses import dataclass

import structlog

from service.db import events, webhooks, work
from service.db.connection import Transaction
from service.domain import event as wording
from service.domain.webhook import CHECK_COMPLETED, GIVE_UP_SECONDS, WebhookDelivery, WebhookEndpoint, pause_seconds
from service.domain.webhook import DELIVER as DELIVER_NAME
from service.domain.work import Work
from service.installation.context import Context
from service.webhooks.sender import Sent
from service.work import claims
from service.work.held import HeldWork
from service.work.kinds import Kind, register

log = structlog.get_logger()
GONE = 410  # Standard Webhooks: the receiver wants no more of them


@dataclass(frozen=True)
class Due:
    """A delivery, and the endpoint as it was when it was claimed."""

    delivery: WebhookDelivery
    endpoint: WebhookEndpoint


class HeldDelivery(HeldWork[Due]):
    """A claim of a delivery, and how it may end."""

    async def note(self, sent: Sent) -> None:
        """Records an attempt: the delivery is done, due again later, or given up. Raises LeaseLost."""
        delivery, endpoint = self.subject.delivery, self.subject.endpoint
        now = int(time.time())
        async with self.transaction() as tx:
            if sent.delivered:
                await webhooks.change_endpoint(tx, endpoint.id, {"succeeded_at": now})
            elif sent.status != GONE and now - delivery.created_at < GIVE_UP_SECONDS:
                attempts = await webhooks.count_attempt(tx, delivery.id)
                await work.postpone(tx, self.id, pause_seconds(attempts))
                return
            else:
                await _give_up(tx, self.subject, sent, now)
            await webhooks.remove_delivery(tx, delivery.id)
            await work.remove(tx, [self.id])


async def claim(ctx: Context, owner: str) -> HeldDelivery | None:
    """The next delivery that is due; None when there is none."""
    found = await claims.claim(ctx, DELIVER, owner, [])
    return None if found is None else HeldDelivery(ctx, found)


async def due_in(ctx: Context) -> float | None:
    """Seconds until `claim` would find one, at most 0 if now; None where none waits. Only reads."""
    async with ctx.database.reading() as tx:
        return await work.claimable_in(tx, DELIVER.name)


async def _begin(tx: Transaction, claimed: Work) -> Due | None:
    """None for a delivery to an endpoint that was deleted or disabled: it ends here."""
    await work.note_progress(tx, claimed.id)  # a delivery cannot be what ends a process: no crash is its fault
    delivery = await webhooks.find_delivery(tx, claimed.subject_id)
    if delivery is None:
        return None
    endpoint = await webhooks.find_endpoint(tx, None, delivery.endpoint_id)
    if endpoint is None or endpoint.disabled_at is not None:
        await webhooks.remove_delivery(tx, delivery.id)
        return None
    return Due(delivery, endpoint)


async def _abandon(tx: Transaction, claimed: Work, crashes: int) -> None:
    """After a bug in the service: the delivery goes with its work."""
    await webhooks.remove_delivery(tx, claimed.subject_id)


DELIVER = register(Kind(DELIVER_NAME, _begin, _abandon))


async def _give_up(tx: Transaction, due: Due, sent: Sent, now: int) -> None:
    """The receiver has not taken the delivery: says so, and disables the endpoint where nothing has come through."""
    delivery = due.delivery
    endpoint = await webhooks.find_endpoint(tx, None, delivery.endpoint_id, lock=True)
    if endpoint is None or endpoint.disabled_at is not None:
        return
    works = endpoint.succeeded_at is not None and endpoint.succeeded_at >= delivery.created_at and sent.status != GONE
    if not works:
        reason = f"{delivery.event_type} could not be delivered: {sent.reason}."
        await webhooks.change_endpoint(tx, endpoint.id, {"disabled_at": now, "disabled_reason": reason})
    log.warning("webhook.given_up", endpoint_id=endpoint.id, webhook_id=delivery.id, disabled=not works)
    if delivery.event_type == CHECK_COMPLETED:
        return  # a check has no events
    told = wording.webhook_given_up(endpoint.id, endpoint.name, delivery.event_type, disabled=not works)
    await events.add(tx, delivery.job_id, [told])
