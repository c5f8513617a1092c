"""What one claim may do: every write is fenced, so that a worker that comes back late changes nothing.

`transaction` is the one way to write: it locks the work first (see `service.db.work` for the order of locks) and raises
LeaseLost where this attempt does not hold it any more. A kind builds its own writes on it, as
`service.operations.progress` does for jobs.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from service.db import work
from service.db.connection import Transaction
from service.db.work import SUSPECT_CRASHES
from service.domain.errors import LeaseLost
from service.domain.work import Claim
from service.installation.context import Context
from service.work.kinds import find

S = TypeVar("S")
POSTPONE_SECONDS = 0.5
POSTPONE_LIMIT_SECONDS = 60.0


class HeldWork(Generic[S]):
    """A claim and the parts that it is written with."""

    def __init__(self, ctx: Context, claim: Claim[S]) -> None:
        self.ctx = ctx
        self.claim = claim
        self.steps = 0  # whole ones that it has done since it was claimed
        self._crashes = claim.work.crashes

    @property
    def id(self) -> str:
        return self.claim.work.id

    @property
    def attempt(self) -> int:
        return self.claim.attempt

    @property
    def subject(self) -> S:
        return self.claim.subject

    @property
    def suspect(self) -> bool:
        """Whether its last attempts all ended without a release, and this one has made no progress yet."""
        return self._crashes >= SUSPECT_CRASHES

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction in which this claim is valid until the commit. Raises LeaseLost."""
        async with self.ctx.database.transaction() as tx:
            if not await work.lock_held(tx, self.id, self.claim.owner, self.attempt):
                raise LeaseLost(self.claim.work.subject_id)
            yield tx

    async def release(self) -> None:
        """Releases it as it is, for the next worker. Raises LeaseLost when the claim is already lost."""
        async with self.transaction() as tx:
            await work.release(tx, self.id)
            self.ring(tx)

    async def postpone(self) -> None:
        """Releases it because it cannot be done now; it is claimed again later, after a longer pause each time."""
        async with self.transaction() as tx:
            await self._postpone(tx)

    async def done(self) -> None:
        """There is nothing left to do."""
        async with self.transaction() as tx:
            await work.remove(tx, [self.id])

    async def abandon(self) -> None:
        """Ends its subject in error, because of a bug in the service."""
        async with self.transaction() as tx:
            await find(self.claim.work.kind).abandon(tx, self.claim.work, 0)
            await work.remove(tx, [self.id])

    async def crashed(self) -> int:
        """Counts the crash of another process that did it, and releases it: at the crash limit its subject ends with
        its kind's error, else it is claimed again later. Returns how many there were since the last progress.
        """
        async with self.transaction() as tx:
            self._crashes = await work.count_crash(tx, self.id)
            if self._crashes >= self.ctx.settings.crash_limit:
                await find(self.claim.work.kind).abandon(tx, self.claim.work, self._crashes)
                await work.remove(tx, [self.id])
            else:
                await self._postpone(tx)
            return self._crashes

    async def charge_crash(self) -> int:
        """Counts a crash while it is held; returns how many there were since the last progress."""
        async with self.transaction() as tx:
            self._crashes = await work.count_crash(tx, self.id)
            return self._crashes

    async def note_progress(self, tx: Transaction) -> None:
        """Records progress: earlier crashes do not count any more. Inside a `transaction`."""
        await work.note_progress(tx, self.id)
        self._crashes = 0

    async def _postpone(self, tx: Transaction) -> None:
        await work.postpone(tx, self.id, delay_seconds(await work.count_postponement(tx, self.id)))

    def ring(self, tx: Transaction) -> None:
        """Notifies workers after the commit."""
        tx.after_commit(lambda: self.ctx.queue.put(self.claim.work.subject_id))


def delay_seconds(postponements: int) -> float:
    """How long work waits after it was postponed this many times without progress: at first 0.5 s, at most a minute."""
    return min(POSTPONE_LIMIT_SECONDS, POSTPONE_SECONDS * 2.0 ** min(postponements - 1, 30))
