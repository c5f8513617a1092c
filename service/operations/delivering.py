"""Sends what is due to webhooks: runs in every API process, beside the requests.

Any number of processes share the deliveries through their leases. A process that is killed leaves its leases to end:
the same deliveries are made again by another one, with the same `webhook-id`, so each is made at least once.
"""

import asyncio
import math
import time
from collections import Counter
from contextlib import suppress

import structlog

from service.domain import ids
from service.domain.errors import InvalidRequest, LeaseLost, Unavailable
from service.domain.webhook import payload, signed_headers
from service.installation.context import Context
from service.operations import webhook_deliveries, webhook_endpoints
from service.operations.keys import Caller
from service.operations.webhook_deliveries import HeldDelivery
from service.operations.webhook_endpoints import check_event_types
from service.webhooks.sender import Sent

log = structlog.get_logger()
POLL_SECONDS = 1.0
AT_ONCE = 32  # of one process
AT_ONCE_OF_A_PROJECT = 4
CONTENT_TYPE = {"Content-Type": "application/json", "User-Agent": "luthier-webhooks"}


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
        due_in = await webhook_deliveries.due_in(self._ctx)
        if due_in is None or due_in > 0:
            return math.inf if due_in is None else due_in
        while self._busy.total() < AT_ONCE:
            held = await webhook_deliveries.claim(self._ctx, self._owner)
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
