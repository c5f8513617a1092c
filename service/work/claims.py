"""A worker's side of work of any kind: claim it in fair order, keep it, release it, make room for another project.

**Crashes.** Work whose lease expired without a release has crashed its worker, or ran beside what did; its next claim
counts that, and after `crash_limit` the kind ends it in error. A worker that stops, gives up a place or cannot reach a
part releases its work, which does not count; one that was only disconnected takes the count back when it returns
(`renew`). A worker claims work that crashed twice in a row one piece at a time, so that other work does not reach the
limit with it. Progress clears the count.

**Fairness.** Places are held to the end of a piece of work, so a fair claim alone does not help a project that finds
every place taken. Then a project that holds more gives a place back, at its next whole step and with everything
stored, and continues later. Two conditions prevent places from being passed back and forth: only work that has had its
own turn is asked (`LUTHIER_SLOT_STEPS`), and after the change the giver holds no less than the receiver, unless the
receiver held nothing at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import structlog

from service.db import work, workers
from service.domain.work import Claim, Work, WorkerState
from service.installation.context import Context
from service.work.held import HeldWork
from service.work.kinds import Kind

S = TypeVar("S")
log = structlog.get_logger()


async def claim(
    ctx: Context,
    kind: Kind[S],
    owner: str,
    bases: Sequence[str],
    *,
    resident: str | None = None,
    suspects: bool = True,
) -> Claim[S] | None:
    """Takes the next work of `kind` for one of `bases`, or for none; None when there is none for this worker now.

    Next is the oldest of the project that holds least. With `resident`, nothing is taken when that is for another base:
    no work overtakes it, so a worker that must change its base gets to do so. `suspects=False` leaves out what
    crashed repeatedly.
    """
    async with ctx.database.transaction() as tx:
        found = await work.next_claimable(tx, kind.name, bases, suspects=suspects)
        if found is None or (resident is not None and found.base not in (None, resident)):
            return None
        crashes = found.crashes + (found.owner is not None)
        if crashes >= ctx.settings.crash_limit:
            await kind.abandon(tx, found, crashes)
            await work.remove(tx, [found.id])
            log.error("work.abandoned", kind=kind.name, subject=found.subject_id, crashes=crashes)
            tx.after_commit(lambda: ctx.queue.put(found.subject_id))
            return None
        taken = await work.take(tx, found, owner, ctx.settings.lease_seconds, crashes)
        subject = await kind.begin(tx, taken)
        if subject is None:
            await work.remove(tx, [taken.id])
            tx.after_commit(lambda: ctx.queue.put(found.subject_id))
            return None
        await work.note_served(tx, kind.name, taken.project_id)
        return Claim(taken, subject, owner)


async def renew(ctx: Context, worker: WorkerState, held: Sequence[HeldWork[Any]]) -> set[str]:
    """Renews the leases of this worker's work, and records its state. Returns the ids of what it still holds.

    Only of that: work that it could not release, because the database was unavailable, must not stay held.
    """
    attempts = {one.id: one.attempt for one in held}
    async with ctx.database.transaction() as tx:
        still = await work.renew(tx, worker.id, attempts, ctx.settings.lease_seconds)
        lost = {id: attempt for id, attempt in attempts.items() if id not in still}
        if lost:
            await work.absolve(tx, lost)
        await workers.beat(tx, worker)
        return still


async def release_all(ctx: Context, owner: str) -> None:
    """Releases whatever this worker still holds: it is stopping."""
    async with ctx.database.transaction() as tx:
        await work.release_all(tx, owner)
        await workers.remove(tx, owner)


async def make_room(
    ctx: Context,
    kind: Kind[Any],
    owner: str,
    bases: Sequence[str],
    *,
    ripe: Sequence[str],
    long_ripe: Sequence[str],
    resident: str | None,
    full: bool,
    suspects: bool = True,
) -> list[str]:
    """Asks some of the work of this worker to give its place to another project's; returns their ids.

    `ripe`, the longest-held first, has had its turn; `long_ripe` long enough for a change of the base in memory.
    Nothing is asked to leave for work that this worker could claim as it is.
    """
    async with ctx.database.transaction() as tx:
        next_up = await work.next_claimable(tx, kind.name, bases, suspects=suspects, coming=True)
        if next_up is None:
            return []
        elsewhere = next_up.base not in (None, resident)
        if not full and not elsewhere:
            return []
        seated = {one.id: one for one in await work.held(tx, kind.name, owner)}
        holdings = await work.holdings(tx, kind.name)
        if elsewhere:
            ready = [seated[id] for id in long_ripe if id in seated]
            change = may_change_base(next_up, list(seated.values()), ready, holdings)
            leaving: list[Work] = ready if change else []
        else:
            leaving = who_leaves(next_up, [seated[id] for id in ripe if id in seated], holdings)
        ids = [one.id for one in leaving]
        if ids:
            await work.ask_to_yield(tx, ids, next_up.project_id)
            log.info("work.makes_room", kind=kind.name, count=len(ids), holder=owner)
        return ids


async def claimable_kinds(ctx: Context, kinds: Sequence[Kind[Any]]) -> set[str]:
    """The names of those kinds of which some work may be claimed now: without any, nobody needs to try."""
    async with ctx.database.reading() as tx:
        return await work.claimable_kinds(tx, [kind.name for kind in kinds])


def makes_room(giver: str, receiver: str, holdings: Mapping[str, int]) -> bool:
    """Whether a project with these holdings gives a place to another one that waits."""
    if giver == receiver:
        return False
    receives = holdings.get(receiver, 0)
    return receives == 0 or holdings.get(giver, 0) - receives >= 2


def who_leaves(next_up: Work, ripe: Sequence[Work], holdings: Mapping[str, int]) -> list[Work]:
    """Which of the `ripe` (those that may be asked, the longest-held first) gives its place to `next_up`: one or none.

    It is of the project that holds most, and of that project's the one that has held its place longest.
    """
    willing = [work for work in ripe if makes_room(work.project_id, next_up.project_id, holdings)]
    return [max(willing, key=lambda work: holdings.get(work.project_id, 0))] if willing else []


def may_change_base(next_up: Work, seated: Sequence[Work], ripe: Sequence[Work], holdings: Mapping[str, int]) -> bool:
    """Whether all that are seated leave, since `next_up` needs another base than theirs.

    Only for a project that holds nothing anywhere, and only once each of them has had its turn. A project's own work
    on another base waits until these have ended.
    """
    return holdings.get(next_up.project_id, 0) == 0 and {work.id for work in seated} <= {work.id for work in ripe}
