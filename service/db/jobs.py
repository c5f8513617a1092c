"""Rows of fine-tuning jobs, and how many there are. Every change of state is a compare-and-set.

Several rows are locked in the order of `sequence`, and the work on them (`service.db.work`) before them, so that no two
transactions can wait for each other.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, insert, null, or_, select, update

from service.db import cursors, webhooks
from service.db.clock import database_now
from service.db.connection import Transaction
from service.db.tables import job_metadata, jobs, models, projects, work
from service.db.work import is_alive
from service.domain.job import ACTIVE, FINAL, Job, Status

SETTLED_SECONDS = 120
_COLUMNS = [jobs.c[field.name] for field in fields(Job)]
LISTED = cursors.Listed(jobs, "project_id")


_JOBS_AND_WORK = jobs.outerjoin(work, work.c.subject_id == jobs.c.id)
_WORK_ON_JOBS = work.join(jobs, work.c.subject_id == jobs.c.id)


def _job(row: Row[Any]) -> Job:
    return Job(**row._mapping)


@dataclass(frozen=True)
class Unfinished:
    """The jobs of one base in one status; times are unix seconds.

    `lost` are held by a worker whose lease has run out, `trained` wait for their announcement. `unstarted_since` is
    when the oldest was made that waits for its first worker, for its files or for a slot. A job that was resumed does
    not count there: when it began to wait is not recorded.
    """

    base: str
    status: Status
    jobs: int
    held: int
    lost: int
    trained: int
    unstarted_since: int | None


@dataclass(frozen=True)
class ProjectJobs:
    """How many jobs of a project are in a status."""

    project: str
    status: Status
    jobs: int


async def add(tx: Transaction, job: Job) -> None:
    """Writes a new job; its id must be new."""
    row = insert(jobs).values({field.name: getattr(job, field.name) for field in fields(Job)})
    sequence = (await tx.connection.execute(row.returning(jobs.c.sequence))).scalar_one()
    pairs = [
        {"job_sequence": sequence, "key": key, "value": value, "project_id": job.project_id}
        for key, value in (job.metadata or {}).items()
    ]
    if pairs:
        await tx.connection.execute(insert(job_metadata), pairs)


async def find(tx: Transaction, project_id: str | None, id: str, *, lock: bool = False) -> Job | None:
    """The job of that project; `None` as project for the workers. `lock`: it cannot change meanwhile."""
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
    query = select(*_COLUMNS).where(jobs.c.project_id == project_id)
    sequence: ColumnElement[int] = jobs.c.sequence
    if metadata:
        first, *others = metadata.items()
        query, sequence = _carrying(project_id, first, others)
    elif metadata is not None:
        query = query.where(jobs.c.metadata.is_(null()))
    if after is not None:
        query = query.where(sequence < cursors.place(LISTED, project_id, after))
    return [_job(row) for row in await tx.connection.execute(query.order_by(sequence.desc()).limit(limit))]


def _carrying(
    project_id: str, first: tuple[str, str], others: Sequence[tuple[str, str]]
) -> tuple[Select[Any], ColumnElement[int]]:
    """The jobs that carry all of these pairs, and the column of their order: an index of the first pair has both.

    Pairs are compared as bound values: a key may have any character.
    """
    one = job_metadata.alias("first")
    query = select(*_COLUMNS).join(one, one.c.job_sequence == jobs.c.sequence)
    query = query.where(one.c.project_id == project_id, one.c.key == first[0], one.c.value == first[1])
    for key, value in others:
        pair = job_metadata.alias()
        also = select(pair.c.key).where(
            pair.c.job_sequence == one.c.job_sequence, pair.c.key == key, pair.c.value == value
        )
        query = query.where(also.exists())
    return query, one.c.job_sequence


async def uses_file(tx: Transaction, file_id: str, *, lock: bool = False) -> list[Job]:
    """The jobs that are not final and name this file. `lock`: they cannot change meanwhile."""
    named = or_(jobs.c.training_file == file_id, jobs.c.validation_file == file_id)
    query = select(*_COLUMNS).where(named, jobs.c.status.in_(ACTIVE)).order_by(jobs.c.sequence)
    if lock:
        query = query.with_for_update(key_share=True)
    return [_job(row) for row in await tx.connection.execute(query)]


async def change(tx: Transaction, id: str, expected: Status, values: Mapping[str, Any]) -> bool:
    """Sets `values` if the job's status is `expected`; False when it was not. Webhooks learn of the new status."""
    result = await tx.connection.execute(
        update(jobs).where(jobs.c.id == id, jobs.c.status == expected).values(dict(values))
    )
    if result.rowcount != 1:
        return False
    await webhooks.note_status(tx, id, values)
    return True


async def pauses_asked(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the jobs that are running and are to be paused."""
    query = select(jobs.c.id).where(
        jobs.c.id.in_(ids), jobs.c.status == "running", jobs.c.pause_requested_at.is_not(None)
    )
    return set((await tx.connection.execute(query)).scalars())


async def unswept(tx: Transaction, limit: int) -> list[str]:
    """Ids of final jobs whose tokenised data and snapshots may still lie in storage.

    Only a while after the end: a worker that lost the job may still be storing its last snapshot.
    """
    settled = int(time.time()) - SETTLED_SECONDS
    query = select(jobs.c.id).where(jobs.c.swept_at.is_(None), jobs.c.finished_at < settled)  # others have not finished
    return list((await tx.connection.execute(query.limit(limit))).scalars())


async def unannounced(tx: Transaction, id: str) -> str | None:
    """The name that the job's artifact was stored under, if no model has it."""
    job = await find(tx, None, id)
    name: str | None = job.publication["name"] if job is not None and job.publication is not None else None
    public = select(models.c.name).where(models.c.name == name)
    return None if (await tx.connection.execute(public)).first() else name


async def known(tx: Transaction, ids: Sequence[str]) -> set[str]:
    """Those of the ids that are jobs whose objects are not swept yet; what is stored after the sweep is an orphan."""
    query = select(jobs.c.id).where(jobs.c.id.in_(ids), jobs.c.swept_at.is_(None))
    return set((await tx.connection.execute(query)).scalars())


async def active(tx: Transaction, id: str) -> bool:
    """Whether there is such a job, and it has not ended."""
    query = select(jobs.c.id).where(jobs.c.id == id, jobs.c.status.in_(ACTIVE))
    return (await tx.connection.execute(query)).one_or_none() is not None


async def mark_swept(tx: Transaction, id: str) -> None:
    await tx.connection.execute(update(jobs).where(jobs.c.id == id).values(swept_at=int(time.time())))


async def unfinished(tx: Transaction) -> list[Unfinished]:
    """Every base and status in which there are jobs that have not ended.

    All are counted by an index alone; rows are read of those that a worker holds or has begun, and of the oldest.
    """
    lost = work.c.lease_expires_at < database_now()
    of_each = select(jobs.c.status, jobs.c.base, func.count().label("jobs")).where(jobs.c.status.in_(ACTIVE))
    count = of_each.group_by(jobs.c.status, jobs.c.base).subquery()
    oldest = (
        select(jobs.c.created_at)
        .select_from(_JOBS_AND_WORK)
        .where(
            jobs.c.status == count.c.status,
            jobs.c.base == count.c.base,
            jobs.c.status.in_(("validating_files", "queued")),
            jobs.c.started_at.is_(None),
            or_(work.c.lease_expires_at.is_(None), lost),
        )
        .order_by(jobs.c.sequence)
        .limit(1)
        .scalar_subquery()
    )
    held = (
        select(
            jobs.c.status,
            jobs.c.base,
            func.count().filter(is_alive()).label("held"),
            func.count().filter(lost).label("lost"),
        )
        .select_from(_WORK_ON_JOBS)
        .where(work.c.lease_expires_at.is_not(None), jobs.c.status.in_(ACTIVE))
        .group_by(jobs.c.status, jobs.c.base)
    )
    trained = (
        select(jobs.c.status, jobs.c.base, func.count().label("trained"))
        .where(jobs.c.status == "running", jobs.c.publication.is_not(null()))
        .group_by(jobs.c.status, jobs.c.base)
    )
    holdings = {(row.status, row.base): row for row in await tx.connection.execute(held)}
    announced = {(row.status, row.base): row.trained for row in await tx.connection.execute(trained)}
    found = []
    for row in await tx.connection.execute(select(count, oldest.label("unstarted_since"))):
        holding = holdings.get((row.status, row.base))
        found.append(
            Unfinished(
                base=row.base,
                status=row.status,
                jobs=row.jobs,
                held=0 if holding is None else holding.held,
                lost=0 if holding is None else holding.lost,
                trained=announced.get((row.status, row.base), 0),
                unstarted_since=row.unstarted_since,
            )
        )
    return found


async def unfinished_by_project(tx: Transaction) -> list[ProjectJobs]:
    """The jobs that have not ended, of each project in each status."""
    query = (
        select(projects.c.name.label("project"), jobs.c.status, func.count().label("jobs"))
        .select_from(jobs.join(projects, projects.c.id == jobs.c.project_id))
        .where(jobs.c.status.in_(ACTIVE))
        .group_by(projects.c.name, jobs.c.status)
        .order_by(projects.c.name, jobs.c.status)
    )
    return [ProjectJobs(**row._mapping) for row in await tx.connection.execute(query)]


async def active_of(tx: Transaction, base: str) -> str | None:
    """One job of the base that has not ended, of any project."""
    query = select(jobs.c.id).where(jobs.c.base == base, jobs.c.status.in_(ACTIVE)).limit(1)
    return (await tx.connection.execute(query)).scalar_one_or_none()


@dataclass(frozen=True)
class Timed:
    """What was measured of a job that has succeeded; `trained_tokens` of all its steps."""

    step: int
    trained_tokens: int
    seconds_per_step: float
    started_at: int
    finished_at: int


async def newest_timed(tx: Transaction, base: str, objective: str, tuning: str, limit: int) -> list[Timed]:
    """The newest jobs of that kind, of all projects, that have succeeded after more than one step."""
    query = (
        select(*(jobs.c[field.name] for field in fields(Timed)))
        .where(
            jobs.c.status == "succeeded",
            jobs.c.base == base,
            jobs.c.objective == objective,
            jobs.c.tuning["type"].as_string() == tuning,
            jobs.c.seconds_per_step > 0,
            jobs.c.trained_tokens > 0,
            jobs.c.step > 0,
            jobs.c.started_at.is_not(None),
        )
        .order_by(jobs.c.sequence.desc())
        .limit(limit)
    )
    return [Timed(**row._mapping) for row in await tx.connection.execute(query)]


async def ended(tx: Transaction) -> dict[Status, int]:
    """How many jobs have ever ended in each way."""
    query = select(jobs.c.status, func.count().label("jobs")).where(jobs.c.status.in_(FINAL)).group_by(jobs.c.status)
    found = {row.status: row.jobs for row in await tx.connection.execute(query)}
    return {status: found.get(status, 0) for status in sorted(FINAL)}
