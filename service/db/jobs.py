"""Rows of fine-tuning jobs. Every change of state is a compare-and-set; a worker's carries its attempt.

Who locks several rows locks them in the order of `sequence`, so that no two can wait for each other.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, func, insert, null, or_, select, tuple_, update
from sqlalchemy.sql.selectable import TableValuedAlias

from service.db.clock import database_now
from service.db.connection import Transaction
from service.db.tables import jobs, models
from service.domain.job import ACTIVE, FINAL, Claim, Job, Status

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


async def queue_positions(tx: Transaction, ids: Sequence[str]) -> dict[str, int]:
    """How many queued jobs of the same base are before each of these; those that are not queued are left out."""
    place = func.row_number().over(partition_by=jobs.c.base, order_by=jobs.c.sequence)
    queue = select(jobs.c.id, place.label("place")).where(jobs.c.status == "queued").subquery()
    rows = await tx.connection.execute(select(queue.c.id, queue.c.place).where(queue.c.id.in_(ids)))
    return {row.id: row.place - 1 for row in rows}


async def uses_file(tx: Transaction, file_id: str) -> list[Job]:
    """The jobs that are not final and name this file; nobody changes them meanwhile."""
    named = or_(jobs.c.training_file == file_id, jobs.c.validation_file == file_id)
    query = select(*_COLUMNS).where(named, jobs.c.status.in_(ACTIVE)).order_by(jobs.c.sequence)
    return [_job(row) for row in await tx.connection.execute(query.with_for_update(key_share=True))]


async def change(tx: Transaction, id: str, expected: Status, values: Mapping[str, Any]) -> bool:
    """Sets `values` if the job's status is `expected`; False when it was not."""
    result = await tx.connection.execute(
        update(jobs).where(jobs.c.id == id, jobs.c.status == expected).values(dict(values))
    )
    return result.rowcount == 1


async def write(tx: Transaction, claim: Claim, values: Mapping[str, Any]) -> bool:
    """A worker's write: only while the claim's attempt and status still stand; False when they do not."""
    result = await tx.connection.execute(update(jobs).where(_held(claim)).values(dict(values)))
    return result.rowcount == 1


async def count_crash(tx: Transaction, claim: Claim) -> int | None:
    """One more trainer crash in this job's turn; answers how many there are, None when the claim is gone."""
    counted = update(jobs).where(_held(claim)).values(crashes=jobs.c.crashes + 1).returning(jobs.c.crashes)
    crashes: int | None = (await tx.connection.execute(counted)).scalar_one_or_none()
    return crashes


async def claim(
    tx: Transaction,
    owner: str,
    statuses: Sequence[Status],
    bases: Sequence[str],
    lease_seconds: float,
    *,
    trained: bool = False,
    resident: str | None = None,
) -> Job | None:
    """Takes the oldest job that waits in one of `statuses`, or whose worker was lost there, for one of `bases`.

    `trained` asks for those that have trained and are to be announced, and for no others. With `resident`, nothing is
    taken when the oldest is for another base than that: no younger job goes before it. `queued` becomes `running`; a
    lost `running` stays so. The attempt is counted up, which fences the former worker.
    """
    stored = jobs.c.publication.is_not(null()) if trained else jobs.c.publication.is_(null())
    free = or_(jobs.c.lease_expires_at.is_(None), jobs.c.lease_expires_at < database_now())
    oldest = (
        select(jobs.c.id, jobs.c.base)
        .where(jobs.c.status.in_(statuses), jobs.c.base.in_(bases), stored, free)
        .order_by(jobs.c.sequence)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True)
    )
    row = (await tx.connection.execute(oldest)).one_or_none()
    if row is None or resident not in (None, row.base):
        return None
    taken = (
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            status=case((jobs.c.status == "queued", "running"), else_=jobs.c.status),
            started_at=case(
                (jobs.c.status == "queued", func.coalesce(jobs.c.started_at, int(time.time()))),
                else_=jobs.c.started_at,
            ),
            attempt=jobs.c.attempt + 1,
            lease_owner=owner,
            lease_expires_at=database_now() + lease_seconds,
        )
        .returning(*_COLUMNS)
    )
    return _job((await tx.connection.execute(taken)).one())


async def renew(tx: Transaction, owner: str, claims: Sequence[Claim], lease_seconds: float) -> dict[str, int]:
    """Renews the leases of these claims of `owner` and answers which still stand: job id -> attempt."""
    working = [(claim.job.id, claim.attempt) for claim in claims]
    held = select(jobs.c.id).where(
        tuple_(jobs.c.id, jobs.c.attempt).in_(working), jobs.c.lease_owner == owner, jobs.c.status.in_(ACTIVE)
    )
    ordered = held.order_by(jobs.c.sequence).with_for_update(key_share=True)
    locked = (await tx.connection.execute(ordered)).scalars().all()
    result = await tx.connection.execute(
        update(jobs)
        .where(jobs.c.id.in_(locked))
        .values(lease_expires_at=database_now() + lease_seconds)
        .returning(jobs.c.id, jobs.c.attempt)
    )
    return {row.id: row.attempt for row in result}


async def pauses_asked(tx: Transaction, owner: str) -> dict[str, int]:
    """The running jobs that `owner` holds and that shall come to rest: job id -> attempt."""
    query = select(jobs.c.id, jobs.c.attempt).where(
        jobs.c.lease_owner == owner, jobs.c.status == "running", jobs.c.pause_requested_at.is_not(None)
    )
    return {row.id: row.attempt for row in await tx.connection.execute(query)}


async def rest(tx: Transaction, claim: Claim) -> Status | None:
    """Gives a job back whose trainer has left it: `paused`, or still `running` when its user thought better of it.

    Answers which; None when the claim is gone.
    """
    wanted = jobs.c.pause_requested_at.is_not(None)
    given_back = (
        update(jobs)
        .where(_held(claim))
        .values(status=case((wanted, "paused"), else_=jobs.c.status), pause_requested_at=null(), **released())
        .returning(jobs.c.status)
    )
    status: Status | None = (await tx.connection.execute(given_back)).scalar_one_or_none()
    return status


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


async def release_all(tx: Transaction, owner: str) -> None:
    """Gives back every job that `owner` holds."""
    held = select(jobs.c.id).where(jobs.c.lease_owner == owner).order_by(jobs.c.sequence)
    locked = (await tx.connection.execute(held.with_for_update(key_share=True))).scalars().all()
    await tx.connection.execute(update(jobs).where(jobs.c.id.in_(locked)).values(released()))


def released() -> dict[str, Any]:
    """The values of a job that nobody holds."""
    return {"lease_owner": null(), "lease_expires_at": null()}


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


def _held(claim: Claim) -> ColumnElement[bool]:
    return and_(jobs.c.id == claim.job.id, jobs.c.attempt == claim.attempt, jobs.c.status == claim.job.status)
