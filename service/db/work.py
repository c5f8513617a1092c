"""Rows of work of any kind: claimed in fair order, fenced by owner and attempt, given back, removed.

**Lock order**: a row of `work` before the row that it is about; several rows of `work` in the order of `sequence`;
`work_shares` last. Code that changes a subject whose work may be held locks the work first (`lock`). Does not depend on
kinds.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Null, Row, Select, and_, case, delete, func, insert, null, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.db.clock import database_now
from service.db.connection import Transaction
from service.db.tables import work, work_shares
from service.domain import ids
from service.domain.work import Work

SUSPECT_CRASHES = 2
_COLUMNS = [work.c[field.name] for field in fields(Work)]


def _work(row: Row[Any]) -> Work:
    return Work(**row._mapping)


async def add(
    tx: Transaction, kind: str, subject_id: str, project_id: str, base: str | None, *, paused: bool = False
) -> str:
    """New work, to be claimed by any worker that runs its kind and holds its base. Returns its id."""
    id = ids.work_id()
    values = {"id": id, "kind": kind, "subject_id": subject_id, "project_id": project_id, "base": base}
    await tx.connection.execute(insert(work).values(**values, paused=paused))
    return id


async def lock(tx: Transaction, subject_ids: Collection[str]) -> list[Work]:
    """The work about these subjects, oldest first; nobody claims or changes it until the commit."""
    query = select(*_COLUMNS).where(work.c.subject_id.in_(subject_ids)).order_by(work.c.sequence)
    return [_work(row) for row in await tx.connection.execute(query.with_for_update(key_share=True))]


async def find(tx: Transaction, subject_id: str) -> list[Work]:
    """The work about a subject, oldest first."""
    query = select(*_COLUMNS).where(work.c.subject_id == subject_id).order_by(work.c.sequence)
    return [_work(row) for row in await tx.connection.execute(query)]


async def next_claimable(
    tx: Transaction, kind: str, bases: Sequence[str], *, suspects: bool, coming: bool = False
) -> Work | None:
    """Which work of `kind` is next, locked: of the project that holds least, and of that project the oldest.

    Of projects that hold equally much the one whose last claim is longest ago is first. Work that its holder has been
    asked to give back does not count as held; with `coming`, it counts for the project that it is given back for.
    `suspects=False` leaves out work that crashed repeatedly.
    """
    claimable = _claimable(kind, bases)
    if not suspects:
        claimable = and_(claimable, _crashes_if_claimed() < SUSPECT_CRASHES)
    held = _holdings(kind, coming).subquery()
    waiting = (
        select(work.c.project_id, func.min(work.c.sequence).label("oldest"))
        .where(claimable)
        .group_by(work.c.project_id)
        .subquery()
    )
    served = select(work_shares).where(work_shares.c.kind == kind).subquery()
    query = (
        select(*_COLUMNS)
        .join(waiting, waiting.c.project_id == work.c.project_id)
        .outerjoin(held, held.c.project_id == work.c.project_id)
        .outerjoin(served, served.c.project_id == work.c.project_id)
        .where(claimable)
        .order_by(
            func.coalesce(held.c.count, 0), func.coalesce(served.c.served_at, 0), waiting.c.oldest, work.c.sequence
        )
        .limit(1)
        .with_for_update(of=work, key_share=True, skip_locked=True)
    )
    row = (await tx.connection.execute(query)).one_or_none()
    return None if row is None else _work(row)


async def claimable_kinds(tx: Transaction, kinds: Sequence[str]) -> set[str]:
    """Those of the kinds of which there is work, of any base, that may be claimed now. Locks nothing."""
    query = select(work.c.kind).where(work.c.kind.in_(kinds), _free()).distinct()
    return set((await tx.connection.execute(query)).scalars())


async def claimable_in(tx: Transaction, kind: str) -> float | None:
    """Seconds until some work of `kind` that needs no base may be claimed, at most 0 if now; None where none waits.

    Held work counts from the end of its lease. Locks nothing.
    """
    due_at = func.min(func.coalesce(work.c.lease_expires_at, work.c.not_before, 0.0))  # never both: see `take`
    query = select(due_at - database_now()).where(work.c.kind == kind, work.c.base.is_(None), work.c.paused.is_(False))
    seconds: float | None = (await tx.connection.execute(query)).scalar_one()
    return seconds


async def take(tx: Transaction, found: Work, owner: str, lease_seconds: float, crashes: int) -> Work:
    """Gives locked work to `owner`; the attempt is increased, which fences the previous one."""
    taken = (
        update(work)
        .where(work.c.id == found.id)
        .values(
            attempt=work.c.attempt + 1,
            crashes=crashes,
            owner=owner,
            lease_expires_at=database_now() + lease_seconds,
            not_before=null(),
            yield_to=null(),
        )
        .returning(*_COLUMNS)
    )
    return _work((await tx.connection.execute(taken)).one())


async def note_served(tx: Transaction, kind: str, project_id: str) -> None:
    """Remembers that the project has just claimed."""
    dialect = postgresql if tx.connection.dialect.name == "postgresql" else sqlite
    new = dialect.insert(work_shares).values(kind=kind, project_id=project_id, served_at=database_now())
    keys = [work_shares.c.kind, work_shares.c.project_id]
    await tx.connection.execute(new.on_conflict_do_update(index_elements=keys, set_={"served_at": database_now()}))


async def lock_held(tx: Transaction, id: str, owner: str, attempt: int) -> bool:
    """The fence: whether this attempt still holds the work, which is locked then until the commit."""
    query = select(work.c.id).where(_held_by(id, owner, attempt)).with_for_update(key_share=True)
    return (await tx.connection.execute(query)).one_or_none() is not None


async def renew(tx: Transaction, owner: str, attempts: Mapping[str, int], lease_seconds: float) -> set[str]:
    """Renews the leases of these attempts (id -> attempt) of `owner`; returns the ids of those that still stand."""
    query = select(work.c.id, work.c.attempt).where(work.c.id.in_(attempts), work.c.owner == owner)
    locked = await tx.connection.execute(query.order_by(work.c.sequence).with_for_update(key_share=True))
    held = {row.id for row in locked if attempts[row.id] == row.attempt}
    lease = database_now() + lease_seconds
    await tx.connection.execute(update(work).where(work.c.id.in_(held)).values(lease_expires_at=lease))
    return held


async def absolve(tx: Transaction, lost: Mapping[str, int]) -> None:
    """Takes back the crash that each of these attempts (id -> attempt) was charged: its worker lives."""
    query = select(work.c.id, work.c.attempt, work.c.crashes).where(work.c.id.in_(lost), work.c.crashes > 0)
    found = await tx.connection.execute(query.order_by(work.c.sequence).with_for_update(key_share=True))
    charged = [row.id for row in found if row.attempt > lost[row.id]]
    await tx.connection.execute(update(work).where(work.c.id.in_(charged)).values(crashes=work.c.crashes - 1))


async def release(tx: Transaction, id: str) -> None:
    """It is not held any more, and any worker may claim it."""
    await tx.connection.execute(update(work).where(work.c.id == id).values(_released()))


async def release_all(tx: Transaction, owner: str) -> None:
    """Gives back everything that `owner` holds."""
    query = select(work.c.id).where(work.c.owner == owner).order_by(work.c.sequence)
    locked = (await tx.connection.execute(query.with_for_update(key_share=True))).scalars().all()
    await tx.connection.execute(update(work).where(work.c.id.in_(locked)).values(_released()))


async def count_postponement(tx: Transaction, id: str) -> int:
    """One more postponement of locked work; returns how many there were since the last progress."""
    counted = update(work).where(work.c.id == id).values(postponements=work.c.postponements + 1)
    count: int = (await tx.connection.execute(counted.returning(work.c.postponements))).scalar_one()
    return count


async def postpone(tx: Transaction, id: str, seconds: float) -> None:
    """It is not held, and no worker may claim it for so long."""
    values = {**_released(), "not_before": database_now() + seconds}
    await tx.connection.execute(update(work).where(work.c.id == id).values(values))


async def count_crash(tx: Transaction, id: str) -> int:
    """One more crash of locked work; returns how many there are."""
    counted = update(work).where(work.c.id == id).values(crashes=work.c.crashes + 1).returning(work.c.crashes)
    crashes: int = (await tx.connection.execute(counted)).scalar_one()
    return crashes


async def note_progress(tx: Transaction, id: str) -> None:
    """Records progress: earlier crashes and postponements do not count any more."""
    await tx.connection.execute(update(work).where(work.c.id == id).values(crashes=0, postponements=0))


async def move(tx: Transaction, id: str, kind: str) -> None:
    """What comes next for the same subject: free for any worker of that kind, and as old as it was."""
    values = {**_released(), "kind": kind, "crashes": 0, "postponements": 0}
    await tx.connection.execute(update(work).where(work.c.id == id).values(values))


async def pause(tx: Transaction, id: str) -> None:
    """It is not held, and no worker may claim it until `wake`."""
    await tx.connection.execute(update(work).where(work.c.id == id).values(**_released(), paused=True))


async def wake(tx: Transaction, ids: Collection[str]) -> None:
    await tx.connection.execute(update(work).where(work.c.id.in_(ids)).values(paused=False))


async def remove(tx: Transaction, ids: Collection[str]) -> None:
    """There is nothing left to do; its holder cannot write any more."""
    await tx.connection.execute(delete(work).where(work.c.id.in_(ids)))


async def held(tx: Transaction, kind: str, owner: str) -> list[Work]:
    """What `owner` holds of `kind` and has not been asked to give back, oldest first."""
    query = select(*_COLUMNS).where(work.c.kind == kind, work.c.owner == owner, work.c.yield_to.is_(None))
    return [_work(row) for row in await tx.connection.execute(query.order_by(work.c.sequence))]


async def holdings(tx: Transaction, kind: str) -> dict[str, int]:
    """How much each project holds of `kind`; what is being given back counts for whom it is given back for."""
    return {row.project_id: row.count for row in await tx.connection.execute(_holdings(kind, coming=True))}


async def ask_to_yield(tx: Transaction, ids: Sequence[str], project_id: str) -> None:
    """Notes that the holder of these shall give them back for that project."""
    query = select(work.c.id).where(work.c.id.in_(ids)).order_by(work.c.sequence).with_for_update(key_share=True)
    locked = (await tx.connection.execute(query)).scalars().all()
    await tx.connection.execute(update(work).where(work.c.id.in_(locked)).values(yield_to=project_id))


async def waiting_before(tx: Transaction, kind: str, subject_ids: Sequence[str], limit: int) -> dict[str, int]:
    """How much waiting work of the same kind and base is older than that of each subject; counted up to `limit`.

    Subjects whose work does not wait are left out. Each count reads a stretch of one index.
    """
    found: dict[str, int] = {}
    mine = select(work.c.subject_id, work.c.base, work.c.sequence).where(
        work.c.kind == kind, work.c.subject_id.in_(subject_ids), work.c.owner.is_(None), work.c.paused.is_(False)
    )
    for row in (await tx.connection.execute(mine)).all():
        some = (
            select(work.c.sequence)
            .where(
                work.c.kind == kind,
                work.c.base == row.base,
                work.c.sequence < row.sequence,
                work.c.owner.is_(None),
                work.c.paused.is_(False),
            )
            .limit(limit)
            .subquery()
        )
        found[row.subject_id] = (await tx.connection.execute(select(func.count()).select_from(some))).scalar_one()
    return found


async def waiting(tx: Transaction, kind: str, base: str, limit: int) -> int:
    """How much work of that kind and base waits to be claimed; counted up to `limit`."""
    matching = (work.c.kind == kind, work.c.base == base, work.c.owner.is_(None), work.c.paused.is_(False))
    some = select(work.c.sequence).where(*matching).limit(limit).subquery()
    return (await tx.connection.execute(select(func.count()).select_from(some))).scalar_one()


def is_alive() -> ColumnElement[bool]:
    """Held, and the lease has not expired."""
    return work.c.lease_expires_at >= database_now()


def _claimable(kind: str, bases: Sequence[str]) -> ColumnElement[bool]:
    return and_(work.c.kind == kind, or_(work.c.base.is_(None), work.c.base.in_(bases)), _free())


def _free() -> ColumnElement[bool]:
    """Neither held nor paused, and due."""
    return and_(
        work.c.paused.is_(False),
        or_(work.c.lease_expires_at.is_(None), work.c.lease_expires_at < database_now()),
        or_(work.c.not_before.is_(None), work.c.not_before <= database_now()),
    )


def _crashes_if_claimed() -> ColumnElement[int]:
    return work.c.crashes + case((work.c.owner.is_not(None), 1), else_=0)


def _holdings(kind: str, coming: bool) -> Select[Any]:
    holder = func.coalesce(work.c.yield_to, work.c.project_id) if coming else work.c.project_id
    query = select(holder.label("project_id"), func.count().label("count")).where(work.c.kind == kind, is_alive())
    return (query if coming else query.where(work.c.yield_to.is_(None))).group_by(holder)


def _held_by(id: str, owner: str, attempt: int) -> ColumnElement[bool]:
    return and_(work.c.id == id, work.c.owner == owner, work.c.attempt == attempt)


def _released() -> dict[str, Null]:
    return {"owner": null(), "lease_expires_at": null(), "yield_to": null(), "not_before": null()}
