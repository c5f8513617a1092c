"""Deliveries of webhooks as work: claimed and sent by every API process, beside the requests; what comes of an attempt.

A delivery that has come to its receiver is done. One that has not is tried again, after a longer pause each time, for
three days; then it is given up, and its endpoint is disabled unless another delivery has come through meanwhile. The
user sees that in the endpoint and as a warning event of the job.

Any number of processes share the deliveries through their leases. A process that is killed leaves its leases to end:
the same deliveries are made again by another one, with the same `webhook-id`, so each is made at least once.
"""

import asyncio
import math
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import structlog

from service.db import events, webhooks, work
from service.db.connection import Transaction
from service.domain import event as wording
from service.domain import ids
from service.domain.errors import InvalidRequest, LeaseLost, Unavailable
from service.domain.webhook import (
    CHECK_COMPLETED,
    GIVE_UP_SECONDS,
    WebhookDelivery,
    WebhookEndpoint,
    pause_seconds,
    payload,
    signed_headers,
)
from service.domain.webhook import DELIVER as DELIVER_NAME
from service.domain.work import Work
from service.installation.context import Context
from service.operations import webhook_endpoints
from service.operations.keys import Caller
from service.operations.webhook_endpoints import check_event_types
from service.webhooks.sender import Sent
from service.work import claims
from service.work.held import HeldWork
from service.work.kinds import Kind, register

log = structlog.get_logger()
POLL_SECONDS = 1.0
AT_ONCE = 32  # of one process
AT_ONCE_OF_A_PROJECT = 4
CONTENT_TYPE = {"Content-Type": "application/json", "User-Agent": "luthier-webhooks"}
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


async def run(ctx: Context) -> None:
    """Delivers until cancelled; what is in progress then is given back."""
    deliveries = Deliveries(ctx)
    async with asyncio.TaskGroup() as sending:
        while True:
            seen, seconds = ctx.database.last_commit(), 0.0
            try:
                seconds = await deliveries.begin_due(sending)
            except Unavailable as error:
                log.warning("webhooks.postponed", reason=type(error).__name__)
            except Exception:
                log.exception("webhooks.failed")  # one bad look must not end all that follow
            await _pause(ctx, seen, seconds)


async def _pause(ctx: Context, seen: int | None, seconds: float) -> None:
    """Waits for so long, but only until anybody commits: that may be a new delivery. Where none shows, for one look."""
    due_at = time.monotonic() + seconds
    while True:
        await asyncio.sleep(POLL_SECONDS)
        if seen is None or ctx.database.last_commit() != seen or time.monotonic() >= due_at:
            return


class Deliveries:
    """The deliveries that this process has in progress."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._owner = ids.worker_id()
        self._busy: Counter[str] = Counter()  # by project

    async def begin_due(self, sending: asyncio.TaskGroup) -> float:
        """Begins what is due, as far as there is room; projects with fewer in progress are first.

        Returns the seconds after which something may be due without a commit; at most 0 where something waits for room.
        """
        seconds = await due_in(self._ctx)
        if seconds is None or seconds > 0:
            return math.inf if seconds is None else seconds
        while self._busy.total() < AT_ONCE:
            held = await claim(self._ctx, self._owner)
            if held is None:
                return 0.0
            project = held.subject.delivery.project_id
            if self._busy[project] >= AT_ONCE_OF_A_PROJECT:
                await held.release()
                return 0.0
            self._busy[project] += 1
            sending.create_task(self._deliver(held, project))
        return 0.0

    async def _deliver(self, held: HeldDelivery, project: str) -> None:
        try:
            await held.note(await self._send(held))
        except asyncio.CancelledError:
            with suppress(LeaseLost, Unavailable):
                await held.release()
            raise
        except (LeaseLost, Unavailable) as error:
            log.info("webhook.repeated", webhook_id=held.subject.delivery.id, reason=type(error).__name__)
        except Exception:
            log.exception(
                "webhook.broken", webhook_id=held.subject.delivery.id
            )  # its lease ends, and it is tried again
        finally:
            self._busy[project] -= 1

    async def _send(self, held: HeldDelivery) -> Sent:
        delivery, endpoint = held.subject.delivery, held.subject.endpoint
        now = int(time.time())
        headers = signed_headers(delivery.id, delivery.payload, endpoint.secrets(now), now)
        began = time.monotonic()
        sent = await self._ctx.webhooks.post(endpoint.url, delivery.payload.encode(), {**CONTENT_TYPE, **headers})
        log.info(
            "webhook.sent",
            webhook_id=delivery.id,
            endpoint_id=endpoint.id,
            type=delivery.event_type,
            status=sent.status,
            attempt=delivery.attempts + 1,
            seconds=round(time.monotonic() - began, 3),
        )
        return sent


async def try_endpoint(ctx: Context, caller: Caller, id: str, event_type: str) -> int:
    """Sends an event that did not happen to the endpoint, once; the status that it responds with.

    Raises NotFound, or InvalidRequest where there is no such event, or no response.
    """
    check_event_types([event_type], "event_type")
    endpoint = await webhook_endpoints.retrieve(ctx, caller, id)
    now = int(time.time())
    body = payload(ids.webhook_event_id(), event_type, ids.job_id(), now)
    headers = signed_headers(ids.webhook_id(), body, endpoint.secrets(now), now)
    sent = await ctx.webhooks.post(endpoint.url, body.encode(), {**CONTENT_TYPE, **headers})
    if sent.status is None:
        raise InvalidRequest(
            f"The webhook endpoint {id} gave no response: {sent.reason}.", code="webhook_endpoint_unreachable"
        )
    return sent.status


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
