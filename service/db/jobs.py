"""Rows of fine-tuning jobs. Every change of state is a compare-and-set.

Who locks several rows locks them in the order of `sequence`, and what works on them (`service.db.work`) before them, so
that no two can wait for each other.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, or_, select, update
from sqlalchemy.sql.selectable import TableValuedAlias

from service.db.connection import Transaction
from service.db.tables import jobs, models
from service.domain.job import ACTIVE, FINAL, Job, Status

SETTLED_SECONDS = 120
_COLUMNS = [jobs.c[field.name] for field in fields(Job)]


def _job(row: Row[Any]) -> Job:
    return Job(**row._mapping)


async def add(tx: Transaction, job: Job) -> None:
    """Writes a new job; its id must be new."""
    await tx.connection.execute(insert(jobs).values({field.name: getattr(job, field.name) for field in fields(Job)}))


async def find(tx: Transaction, project_id: str | None, id: str, *, lock: bool = False) -> Job | None:
    """The job of that project; `None` as project for the workers. `lock`: nobody changes it meanwhile."""
    query = select(*_COLUMNS).where(jobs.c.id == id)
    if project_id is not None:
        query = query.where(jobs.c.project_id == project_id)
    if lock:
        query = query.with_for_update(key_share=True)
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _job(row)


async def page(
    tx: Transaction, project_id: str, after: str | None, limit: int, metadata: Mapping[str, str] | None = None
) -> list[Job]:
    """At most `limit` jobs, newest first, older than `after`; an unknown `after` gives none.

    With `metadata` only those that carry all of it; with an empty one, those that carry none.
    """
    query = select(*_COLUMNS).where(jobs.c.project_id == project_id).order_by(jobs.c.sequence.desc()).limit(limit)
    if metadata is not None:
        query = query.where(_carries(tx, metadata))
    if after is not None:
        cursor = select(jobs.c.sequence).where(jobs.c.id == after, jobs.c.project_id == project_id)
        query = query.where(jobs.c.sequence < cursor.scalar_subquery())
    return [_job(row) for row in await tx.connection.execute(query)]


async def uses_file(tx: Transaction, file_id: str, *, lock: bool = False) -> list[Job]:
    """The jobs that are not final and name this file. `lock`: nobody changes them meanwhile."""
    named = or_(jobs.c.training_file == file_id, jobs.c.validation_file == file_id)
    query = select(*_COLUMNS).where(named, jobs.c.status.in_(ACTIVE)).order_by(jobs.c.sequence)
    if lock:
        query = query.with_for_update(key_share=True)
    return [_job(row) for row in await tx.connection.execute(query)]


async def change(tx: Transaction, id: str, expected: Status, values: Mapping[str, Any]) -> bool:
    """Sets `values` if the job's status is `expected`; False when it was not."""
    result = await tx.connection.execute(
        update(jobs).where(jobs.c.id == id, jobs.c.status == expected).values(dict(values))
    )
    return result.rowcount == 1


async def pauses_asked(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the jobs that are running and shall come to rest."""
    query = select(jobs.c.id).where(
        jobs.c.id.in_(ids), jobs.c.status == "running", jobs.c.pause_requested_at.is_not(None)
    )
    return set((await tx.connection.execute(query)).scalars())


async def unswept(tx: Transaction, limit: int) -> list[str]:
    """Ids of final jobs whose tokenised data and snapshots may still lie in storage.

    Only a while after the end: a worker that lost the job may still be storing its last snapshot.
    """
    settled = int(time.time()) - SETTLED_SECONDS
    query = select(jobs.c.id).where(jobs.c.status.in_(FINAL), jobs.c.swept_at.is_(None), jobs.c.finished_at < settled)
    return list((await tx.connection.execute(query.limit(limit))).scalars())


async def unannounced(tx: Transaction, id: str) -> str | None:
    """The name that the job's artifact was stored under, if no model has it."""
    job = await find(tx, None, id)
    name: str | None = job.publication["name"] if job is not None and job.publication is not None else None
    public = select(models.c.name).where(models.c.name == name)
    return None if (await tx.connection.execute(public)).first() else name


async def known(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the ids that are jobs whose objects are not swept yet; what comes after the sweep is nobody's."""
    query = select(jobs.c.id).where(jobs.c.id.in_(ids), jobs.c.swept_at.is_(None))
    return set((await tx.connection.execute(query)).scalars())


async def active(tx: Transaction, id: str) -> bool:
    """Whether there is such a job, and it has not ended."""
    query = select(jobs.c.id).where(jobs.c.id == id, jobs.c.status.in_(ACTIVE))
    return (await tx.connection.execute(query)).one_or_none() is not None


async def mark_swept(tx: Transaction, id: str) -> None:
    await tx.connection.execute(update(jobs).where(jobs.c.id == id).values(swept_at=int(time.time())))


def _carries(tx: Transaction, metadata: Mapping[str, str]) -> ColumnElement[bool]:
    """Pairs are compared as bound values: a key may have any character, and becomes no path."""
    each = func.json_each if tx.connection.dialect.name == "sqlite" else func.json_each_text
    if not metadata:
        return ~_has_pair(each(jobs.c.metadata).table_valued("key", "value", name="pair"))
    pairs = [
        (each(jobs.c.metadata).table_valued("key", "value", name=f"pair_{number}"), key, value)
        for number, (key, value) in enumerate(metadata.items())
    ]
    return and_(*(_has_pair(pair, pair.c.key == key, pair.c.value == value) for pair, key, value in pairs))


def _has_pair(pair: TableValuedAlias, *wanted: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(pair.c.key).where(*wanted).correlate(jobs).exists()
