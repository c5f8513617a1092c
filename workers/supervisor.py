"""One worker: hears bells, claims jobs, keeps their coroutines, beats the leases.

Every third of a lease it renews all that it holds, and only then lets the trainers live on: a supervisor that is
killed, frozen or cut off from the database takes its trainers with it before another worker can claim their jobs.
"""

import asyncio
import signal
from collections.abc import Coroutine
from functools import partial
from pathlib import Path

import structlog

from service.domain import ids
from service.domain.base import Base
from service.domain.errors import JobError, LeaseLost, Unavailable
from service.domain.job import Claim
from service.operations import progress
from service.operations.context import Context
from service.storage import StorageError
from workers.integrations.tracker import Run, Tracker, let_finish
from workers.run_job import JobRun
from workers.trainer.handle import TrainerHandle
from workers.validate_job import JobValidation, Tokenizers

log = structlog.get_logger()
STOP_SECONDS = 20.0


class Supervisor:
    """Claims what its slots can hold; `run` returns after a signal, with every job given back."""

    def __init__(self, ctx: Context, trainers: dict[str, TrainerHandle], scratch: Path) -> None:
        self._ctx = ctx
        self._trainers = trainers  # base id -> its resident trainer
        self._scratch = scratch
        self._owner = ids.worker_id()
        self._validations: dict[str, asyncio.Task[None]] = {}
        self._trainings: dict[str, asyncio.Task[None]] = {}
        self._seats: dict[str, str] = {}  # job id -> base id
        self._attempts: dict[str, int] = {}
        self._stopping = asyncio.Event()
        self._tokenizers = Tokenizers()
        self._runs: set[Run] = set()  # of integrations; they may end after their jobs

    async def run(self) -> None:
        """Serves until SIGINT or SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        log.info("worker.ready", worker=self._owner, bases=",".join(self._trainers))
        warming = asyncio.create_task(self._warm())
        serving = asyncio.create_task(self._ctx.queue.serve(self._look))
        beating = asyncio.create_task(self._beat())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({serving, beating, stopping}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        await self._give_back()
        for task in (warming, beating, stopping):
            task.cancel()
        await asyncio.gather(let_finish(self._runs), *(trainer.stop() for trainer in self._trainers.values()))
        for task in (serving, beating):
            if task.done() and not task.cancelled():
                task.result()  # a bug in the loop ends the worker loudly

    def stop(self) -> None:
        """Asks `run` to return, as a signal does."""
        self._stopping.set()

    async def _warm(self) -> None:
        """Loads the base at once where there is only one; several would not all fit, so the first job decides."""
        if len(self._trainers) == 1:
            for trainer in self._trainers.values():
                await trainer.start()

    async def _look(self) -> None:
        """Claims as much as fits, and pauses what shall rest; called at every ring."""
        try:
            await self._pause()
            while len(self._validations) < self._ctx.settings.validations and await self._claim_validation():
                pass
            while (free := self._free_bases()) and await self._claim_training(free):
                pass
        except Unavailable:
            log.warning("worker.database_away")

    async def _pause(self) -> None:
        """Asks trainers to bring jobs to rest; again and again until they have, since a job may be on its way in."""
        if not self._trainings:
            return
        for job_id, attempt in (await progress.pauses_asked(self._ctx, self._owner)).items():
            if self._attempts.get(job_id) == attempt and job_id in self._seats:
                await self._trainers[self._seats[job_id]].pause(job_id)

    def _free_bases(self) -> list[str]:
        seated = list(self._seats.values())
        return [base for base in self._trainers if seated.count(base) < self._ctx.settings.slots]

    async def _claim_validation(self) -> bool:
        claim = await progress.claim_validation(self._ctx, self._owner)
        if claim is None:
            return False
        work = JobValidation(self._ctx, claim, self._base(claim), self._tokenizers, self._scratch)
        self._start(self._validations, claim, work.run())
        return True

    async def _claim_training(self, free: list[str]) -> bool:
        claim = await progress.claim_training(self._ctx, self._owner, free)
        if claim is None:
            return False
        base = self._base(claim)
        self._seats[claim.job.id] = base.id
        work = JobRun(
            self._ctx, claim, base, self._trainers[base.id], self._scratch, Tracker(self._ctx, claim, self._runs)
        )
        self._start(self._trainings, claim, work.run())
        return True

    def _base(self, claim: Claim) -> Base:
        return self._ctx.catalogue.bases[claim.job.base]

    def _start(self, tasks: dict[str, asyncio.Task[None]], claim: Claim, work: Coroutine[None, None, None]) -> None:
        job_id = claim.job.id
        self._attempts[job_id] = claim.attempt
        tasks[job_id] = asyncio.create_task(self._guard(claim, work))
        tasks[job_id].add_done_callback(partial(self._ended, tasks, job_id))

    def _ended(self, tasks: dict[str, asyncio.Task[None]], job_id: str, task: asyncio.Task[None]) -> None:
        tasks.pop(job_id, None)
        self._attempts.pop(job_id, None)
        self._seats.pop(job_id, None)
        asyncio.get_running_loop().create_task(self._ctx.queue.put(job_id))  # a slot is free: look again

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
            before = dict(self._attempts)  # what is claimed while the renewal runs is not lost
            try:
                held = await progress.renew(self._ctx, self._owner)
            except Unavailable:
                log.warning("worker.database_away")  # no beat: the trainers end before their leases do
            else:
                self._drop_lost(before, held)
                await asyncio.gather(*(trainer.beat() for trainer in self._trainers.values()))
            await asyncio.sleep(self._ctx.settings.lease_seconds / 3)

    def _drop_lost(self, before: dict[str, int], held: dict[str, int]) -> None:
        tasks = self._validations | self._trainings
        for job_id, attempt in before.items():
            if held.get(job_id) != attempt and job_id in tasks:
                tasks[job_id].cancel()

    async def _give_back(self) -> None:
        """Snapshots what is in a slot, then gives every job back."""
        for job_id, base in self._seats.items():
            await self._trainers[base].leave(job_id, snapshot=True)
        tasks = [*self._trainings.values(), *self._validations.values()]
        if tasks:
            for task in self._validations.values():
                task.cancel()
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await progress.release_all(self._ctx, self._owner)
