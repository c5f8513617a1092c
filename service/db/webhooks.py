"""Rows of webhook endpoints, and of deliveries: events on their way to an endpoint. One that has ended has no row.

`note_status` writes those of a job's new status; `service.db.jobs.change` calls it, so that no change of a status is
committed without them. A delivery's work (`service.db.work`) says when it is due and who holds it.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from service.db import cursors, work
from service.db.connection import Transaction
from service.db.tables import jobs, webhook_deliveries, webhook_endpoints
from service.domain import ids
from service.domain.webhook import DELIVER, JOB_EVENTS, WebhookDelivery, WebhookEndpoint, payload

_ENDPOINT = [webhook_endpoints.c[field.name] for field in fields(WebhookEndpoint)]
_DELIVERY = [webhook_deliveries.c[field.name] for field in fields(WebhookDelivery)]
LISTED = cursors.Listed(webhook_endpoints, "project_id")


def _endpoint(row: Row[Any]) -> WebhookEndpoint:
    return WebhookEndpoint(**row._mapping)


async def add_deliveries(tx: Transaction, project_id: str, subject_id: str, event_type: str) -> None:
    """That has happened to a job or a check: one delivery for each endpoint of the project that wants to know."""
    rows = webhook_endpoints.c
    query = select(*_ENDPOINT).where(rows.project_id == project_id, rows.disabled_at.is_(None)).order_by(rows.sequence)
    endpoints = [_endpoint(row) for row in await tx.connection.execute(query)]
    event_id, now = ids.webhook_event_id(), int(time.time())
    for endpoint in endpoints:
        if event_type in endpoint.event_types:
            told = WebhookDelivery(
                id=ids.webhook_id(),
                endpoint_id=endpoint.id,
                project_id=endpoint.project_id,
                job_id=subject_id,
                event_type=event_type,
                payload=payload(event_id, event_type, subject_id, now),
                created_at=now,
            )
            await tx.connection.execute(insert(webhook_deliveries).values(asdict(told)))
            await work.add(tx, DELIVER, told.id, told.project_id, None)


async def note_status(tx: Transaction, job_id: str, values: Mapping[str, Any]) -> None:
    """`add_deliveries`, where the change is one of a status that has an event."""
    for status, event_type in JOB_EVENTS.items():
        if values.get("status") == status:
            of_project = select(jobs.c.project_id).where(jobs.c.id == job_id)
            project_id = (await tx.connection.execute(of_project)).scalar_one()
            await add_deliveries(tx, project_id, job_id, event_type)


async def add_endpoint(tx: Transaction, endpoint: WebhookEndpoint) -> None:
    await tx.connection.execute(insert(webhook_endpoints).values(asdict(endpoint)))


async def find_endpoint(
    tx: Transaction, project_id: str | None, id: str, *, lock: bool = False
) -> WebhookEndpoint | None:
    """`None` as project for any. `lock`: it stays as it is until the commit."""
    query = select(*_ENDPOINT).where(webhook_endpoints.c.id == id)
    if project_id is not None:
        query = query.where(webhook_endpoints.c.project_id == project_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _endpoint(row)


async def change_endpoint(tx: Transaction, id: str, values: Mapping[str, Any]) -> None:
    await tx.connection.execute(update(webhook_endpoints).where(webhook_endpoints.c.id == id).values(dict(values)))


async def remove_endpoint(tx: Transaction, id: str) -> None:
    """Its deliveries go when they are due."""
    await cursors.remove(tx, LISTED, webhook_endpoints.c.id == id)


async def count_endpoints(tx: Transaction, project_id: str) -> int:
    query = select(func.count()).select_from(webhook_endpoints).where(webhook_endpoints.c.project_id == project_id)
    return int((await tx.connection.execute(query)).scalar_one())


async def endpoint_page(tx: Transaction, project_id: str, after: str | None, limit: int) -> list[WebhookEndpoint]:
    """At most `limit`, newest first, older than `after`; an unknown `after` gives none."""
    rows = webhook_endpoints.c
    query = select(*_ENDPOINT).where(rows.project_id == project_id).order_by(rows.sequence.desc()).limit(limit)
    if after is not None:
        query = query.where(rows.sequence < cursors.place(LISTED, project_id, after))
    return [_endpoint(row) for row in await tx.connection.execute(query)]


async def find_delivery(tx: Transaction, id: str) -> WebhookDelivery | None:
    row = (await tx.connection.execute(select(*_DELIVERY).where(webhook_deliveries.c.id == id))).one_or_none()
    return None if row is None else WebhookDelivery(**row._mapping)


async def count_attempt(tx: Transaction, id: str) -> int:
    """One more attempt; returns how many there were."""
    rows = webhook_deliveries.c
    counted = update(webhook_deliveries).where(rows.id == id).values(attempts=rows.attempts + 1)
    return int((await tx.connection.execute(counted.returning(rows.attempts))).scalar_one())


async def remove_delivery(tx: Transaction, id: str) -> None:
    """It has ended, delivered or not."""
    await tx.connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.id == id))
