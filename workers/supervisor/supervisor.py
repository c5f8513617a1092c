"""One worker: hears bells, claims jobs, keeps their coroutines, beats the leases.

Every third of a lease it renews all that it holds, and only then lets the trainers live on: a supervisor that is
killed, frozen or cut off from the database takes its trainers with it before another worker can claim their jobs.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from service.domain import ids
from service.domain.errors import JobError, LeaseLost, Unavailable
from service.domain.job import Claim
from service.installation.context import Context
from service.operations import progress
from service.recipes.base import Base
from service.storage import StorageError
from workers.integrations.tracker import Run, Tracker, let_finish
from workers.jobs.announce import JobAnnouncement
from workers.jobs.train import JobRun
from workers.jobs.validate import JobValidation, Tokenizers
from workers.supervisor.residence import Residence
from workers.trainer.parent.handle import TrainerHandle

log = structlog.get_logger()
STOP_SECONDS = 20.0
ANNOUNCEMENTS = 8  # of one base at a time: an engine that is away for long must not fill the worker


@dataclass(frozen=True, eq=False)
class _Work:
    """One claim and the coroutine that serves it."""

    claim: Claim
    task: asyncio.Task[None]

    @property
    def base(self) -> str:
        return self.claim.job.base


Works = dict[str, _Work]  # by job id


class Supervisor:
    """Claims what its slots can hold; `run` returns after a signal, with every job given back."""

    def __init__(self, ctx: Context, trainers: dict[str, TrainerHandle], scratch: Path) -> None:
        self._ctx = ctx
        self._residence = Residence(trainers)  # by base id
        self._scratch = scratch
        self._owner = ids.worker_id()
        self._validations: Works = {}
        self._trainings: Works = {}
        self._announcements: Works = {}
        self._stopping = asyncio.Event()
        self._tokenizers = Tokenizers()
        self._runs: set[Run] = set()  # of integrations; they may end after their jobs

    async def run(self) -> None:
        """Serves until SIGINT or SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        log.info("worker.ready", worker=self._owner, bases=",".join(self._residence.bases))
        warming = asyncio.create_task(self._residence.warm())
        serving = asyncio.create_task(self._ctx.queue.serve(self._look))
        beating = asyncio.create_task(self._beat())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({serving, beating, stopping}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        await self._give_back()
        for task in (warming, beating, stopping):
            task.cancel()
        await asyncio.gather(let_finish(self._runs), self._residence.stop())
        await asyncio.wait({serving}, timeout=STOP_SECONDS)  # it may say good-bye to the bell
        for task in (serving, beating):
            if task.done() and not task.cancelled():
                task.result()  # a bug in the loop ends the worker loudly

    def stop(self) -> None:
        """Asks `run` to return, as a signal does."""
        self._stopping.set()

    async def _look(self) -> None:
        """Claims as much as fits, and pauses what shall rest; called at every ring."""
        try:
            await self._pause()
            while len(self._validations) < self._ctx.settings.validations and await self._claim_validation():
                pass
            while await self._claim_announcement():
                pass
            while await self._claim_training():
                pass
        except Unavailable:
            log.warning("worker.database_away")

    async def _pause(self) -> None:
        """Asks trainers to bring jobs to rest; again and again until they have, since a job may be on its way in."""
        if not self._trainings:
            return
        for job_id, attempt in (await progress.pauses_asked(self._ctx, self._owner)).items():
            work = self._trainings.get(job_id)
            if work is not None and work.claim.attempt == attempt:
                await self._residence[work.base].pause(job_id)

    def _free_bases(self, works: Works, limit: int) -> list[str]:
        """The bases that have room for another of these works."""
        counts = Counter(work.base for work in works.values())
        return [base for base in self._residence.bases if counts[base] < limit]

    async def _claim_validation(self) -> bool:
        claim = await progress.claim_validation(self._ctx, self._owner, self._residence.bases)
        if claim is None:
            return False
        work = JobValidation(self._ctx, claim, self._base(claim), self._tokenizers, self._scratch)
        self._start(self._validations, claim, work.run())
        return True

    async def _claim_announcement(self) -> bool:
        free = self._free_bases(self._announcements, ANNOUNCEMENTS)
        claim = await progress.claim_announcement(self._ctx, self._owner, free) if free else None
        if claim is None:
            return False
        tracker = Tracker(self._ctx, claim, self._runs)
        work = JobAnnouncement(self._ctx, claim, self._base(claim), tracker)
        self._start(self._announcements, claim, work.run())
        return True

    async def _claim_training(self) -> bool:
        """Takes the oldest waiting job, or none where that one is for a base that must wait: see `residence`."""
        if len(self._trainings) >= self._ctx.settings.slots:
            return False
        resident = next((work.base for work in self._trainings.values()), None)
        claim = await progress.claim_training(self._ctx, self._owner, self._residence.bases, resident)
        if claim is None:
            return False
        self._start(self._trainings, claim, self._train(claim))
        return True

    async def _train(self, claim: Claim) -> None:
        base = self._base(claim)
        trainer = await self._residence.move_in(base.id)
        tracker = Tracker(self._ctx, claim, self._runs)
        await JobRun(self._ctx, claim, base, trainer, self._scratch, tracker).run()

    def _base(self, claim: Claim) -> Base:
        return self._ctx.catalogue.bases[claim.job.base]

    def _start(self, works: Works, claim: Claim, coroutine: Coroutine[None, None, None]) -> None:
        work = _Work(claim, asyncio.create_task(self._guard(claim, coroutine)))
        works[claim.job.id] = work
        work.task.add_done_callback(partial(self._ended, works, work))

    def _ended(self, works: Works, work: _Work, task: asyncio.Task[None]) -> None:
        job_id = work.claim.job.id
        if works.get(job_id) is work:  # otherwise the job has been claimed again meanwhile
            works.pop(job_id)
        asyncio.get_running_loop().create_task(self._ctx.queue.put(job_id))  # there is room again: look

    async def _guard(self, claim: Claim, work: Coroutine[None, None, None]) -> None:
        """The edge of a job: whatever happens in it ends here, in the job's row or in the log."""
        try:
            await work
        except LeaseLost:
            log.info("job.let_go", job_id=claim.job.id, attempt=claim.attempt)
        except (Unavailable, StorageError) as error:
            log.warning("job.postponed", job_id=claim.job.id, reason=type(error).__name__)
            await self._release(claim)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("job.broken", job_id=claim.job.id)
            await self._fail(claim)

    async def _release(self, claim: Claim) -> None:
        try:
            await progress.release(self._ctx, claim)
        except Unavailable:
            log.warning("job.left_to_its_lease", job_id=claim.job.id)

    async def _fail(self, claim: Claim) -> None:
        message = "The job failed because of an error in the service, not in its data; the worker's log says more."
        try:
            await progress.fail(self._ctx, claim, JobError("server_error", message))
        except (LeaseLost, Unavailable):
            log.warning("job.left_to_its_lease", job_id=claim.job.id)

    async def _beat(self) -> None:
        while True:
            before = self._works()  # what is claimed while the renewal runs is not lost
            try:
                held = await progress.renew(self._ctx, self._owner, [work.claim for work in before])
            except Unavailable:
                log.warning("worker.database_away")  # no beat: the trainers end before their leases do
            else:
                self._drop_lost(before, held)
                await self._residence.beat()
            await asyncio.sleep(self._ctx.settings.lease_seconds / 3)

    def _works(self) -> list[_Work]:
        return [*self._validations.values(), *self._trainings.values(), *self._announcements.values()]

    def _drop_lost(self, before: list[_Work], held: dict[str, int]) -> None:
        for work in before:
            if held.get(work.claim.job.id) != work.claim.attempt:
                work.task.cancel()

    async def _give_back(self) -> None:
        """Snapshots what is in a slot, then gives every job back."""
        for job_id, work in list(self._trainings.items()):
            await self._residence[work.base].leave(job_id, snapshot=True)
        tasks = [work.task for work in self._works()]
        if tasks:
            for work in [*self._validations.values(), *self._announcements.values()]:
                work.task.cancel()
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await progress.release_all(self._ctx, self._owner)
