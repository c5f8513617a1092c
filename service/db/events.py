"""A job's events: numbered from 1 without gaps under the job's row lock, so that followers miss none."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Row, Select, and_, bindparam, func, insert, or_, select

from service.db import cursors
from service.db.connection import Transaction
from service.db.tables import job_events, jobs
from service.domain import ids
from service.domain.event import Event, Kind, NewEvent, step_key
from service.domain.job import Metrics

_COLUMNS = [column for column in job_events.c if column.name != "key"]
LISTED = cursors.Listed(job_events, "job_id")


def _event(row: Row[Any]) -> Event:
    return Event(**row._mapping)


async def add(tx: Transaction, job_id: str, events: Sequence[NewEvent]) -> None:
    """Appends the events; one whose key the job already has is a replay and is skipped."""
    await _lock(tx, job_id)
    keys = [event.key for event in events if event.key is not None]
    query = select(job_events.c.key).where(job_events.c.job_id == job_id, job_events.c.key.in_(keys))
    seen = set((await tx.connection.execute(query)).scalars())
    new = [event for event in events if event.key is None or event.key not in seen]
    last = select(func.max(job_events.c.sequence)).where(job_events.c.job_id == job_id)
    sequence = (await tx.connection.execute(last)).scalar_one() or 0
    rows = [_values(job_id, number, event) for number, event in enumerate(new, sequence + 1)]
    if rows:
        await tx.connection.execute(insert(job_events), rows)


async def page(tx: Transaction, job_id: str, after: str | None, limit: int, kind: Kind | None = None) -> list[Event]:
    """At most `limit` events, newest first, older than `after`; an unknown `after` gives none.

    With `kind` only those of that type.
    """
    query = select(*_COLUMNS).where(job_events.c.job_id == job_id).order_by(job_events.c.sequence.desc()).limit(limit)
    if kind is not None:
        # Written out: the index of messages is a partial one.
        word: BindParameter[str] = bindparam("kind", kind, literal_execute=True)
        query = query.where(job_events.c.type == word)
    if after is not None:
        query = query.where(job_events.c.sequence < cursors.place(LISTED, job_id, after))
    return [_event(row) for row in await tx.connection.execute(query)]


async def sequence_of(tx: Transaction, job_id: str, id: str) -> int | None:
    """The number of this event among the job's; None when it is not one of them."""
    query = select(job_events.c.sequence).where(job_events.c.id == id, job_events.c.job_id == job_id)
    return (await tx.connection.execute(query)).scalar_one_or_none()


async def since(tx: Transaction, job_id: str, sequence: int, limit: int) -> list[Event]:
    """At most `limit` events, oldest first, behind number `sequence`."""
    behind = select(*_COLUMNS).where(job_events.c.job_id == job_id, job_events.c.sequence > sequence)
    query = behind.order_by(job_events.c.sequence).limit(limit)
    return [_event(row) for row in await tx.connection.execute(query)]


async def metrics_since(tx: Transaction, job_id: str, sequence: int, limit: int) -> list[tuple[int, Metrics]]:
    """Number and data of at most `limit` metrics events, oldest first, behind number `sequence`."""
    query = _metrics(job_id).where(job_events.c.sequence > sequence).order_by(job_events.c.sequence).limit(limit)
    return [(row.sequence, row.data) for row in await tx.connection.execute(query)]


async def last_metrics(tx: Transaction, job_id: str, limit: int) -> list[Metrics]:
    """The data of the newest `limit` metrics events, oldest first."""
    query = _metrics(job_id).order_by(job_events.c.sequence.desc()).limit(limit)
    return [row.data for row in await tx.connection.execute(query)][::-1]


async def metrics_at(tx: Transaction, steps: Mapping[str, Sequence[int]]) -> dict[str, list[Metrics]]:
    """The data of the metrics events of these steps, by job, in no order; a step without an event is left out."""
    if not steps:
        return {}
    wanted = [
        and_(job_events.c.job_id == job_id, job_events.c.key.in_([step_key(step) for step in numbers]))
        for job_id, numbers in steps.items()
    ]
    found: dict[str, list[Metrics]] = {}
    for row in await tx.connection.execute(select(job_events.c.job_id, job_events.c.data).where(or_(*wanted))):
        found.setdefault(row.job_id, []).append(row.data)
    return found


async def metrics_with(tx: Transaction, job_id: str, name: str, limit: int) -> list[Metrics]:
    """The data of at most `limit` metrics events that have this metric, oldest first."""
    query = _metrics(job_id).where(job_events.c.data[name].as_string().is_not(None))
    return [row.data for row in await tx.connection.execute(query.order_by(job_events.c.sequence).limit(limit))]


def _metrics(job_id: str) -> Select[int, Any]:
    return select(job_events.c.sequence, job_events.c.data).where(
        job_events.c.job_id == job_id, job_events.c.type == "metrics"
    )


async def _lock(tx: Transaction, job_id: str) -> None:
    """Holds the job's row until the commit: two writers of one job's events follow each other."""
    await tx.connection.execute(select(jobs.c.id).where(jobs.c.id == job_id).with_for_update(key_share=True))


def _values(job_id: str, sequence: int, event: NewEvent) -> dict[str, object]:
    return {
        "job_id": job_id,
        "sequence": sequence,
        "id": ids.event_id(),
        "created_at": int(time.time()),
        "level": event.level,
        "type": event.type,
        "message": event.message,
        "data": dict(event.data),
        "key": event.key,
    }
