"""ONE JOB FROM QUEUED TO TRAINED: stage, seat, relay, publish. Read this first; `announce_job` is the rest of it.

    stage     tokenised rows, the newest good snapshot and job.json into a folder
    seat      the trainer gives the job a slot and reports; a crash seats it again, from its last snapshot
    relay     steps become metrics events; snapshots and checkpoints go to storage beside it (`keeping`)
    publish   the last adapter becomes an immutable artifact under a name of its own
    end       one fenced transaction: trained, to be announced by the next claim; or `paused`, when its user asked

Knows nothing of tensors. Whoever cancels this coroutine (lease lost, worker stopping) gets the slot emptied.
"""

from contextlib import aclosing
from functools import partial
from pathlib import Path

import structlog

from service.domain import event as wording
from service.domain.errors import JobError, LeaseLost
from service.domain.job import Claim
from service.installation.context import Context
from service.operations import bases, progress
from service.operations.bases import BaseRecord
from service.recipes.base import Base
from workers.files.disk import disk_errors
from workers.integrations.tracker import Tracker
from workers.jobs.background_uploads import Keeper
from workers.jobs.publishing import Publisher
from workers.jobs.relay import StepRelay
from workers.jobs.staging import stage_job
from workers.trainer.parent.handle import TrainerHandle
from workers.trainer.protocol import Checkpointed, Crashed, Failed, Left, Paused, Report, Seated, Snapshotted, Stepped

log = structlog.get_logger()


class JobRun:
    """One claim of one job on one trainer."""

    def __init__(
        self, ctx: Context, claim: Claim, base: Base, trainer: TrainerHandle, scratch: Path, tracker: Tracker
    ) -> None:
        self._ctx = ctx
        self._claim = claim
        self._tracker = tracker
        self._base = base
        self._trainer = trainer
        self._folder = scratch / f"{claim.job.id}-{claim.attempt}"
        self._steps = StepRelay(ctx, claim)
        self._keeper = Keeper(ctx, claim)
        self._publisher = Publisher(ctx, claim, base)

    async def run(self) -> None:
        """Trains to the end and hands the job on, or fails it. Raises LeaseLost and what parts that are away raise."""
        log.info("job.claimed", job_id=self._claim.job.id, attempt=self._claim.attempt)
        try:
            with disk_errors():
                await self._run()
        except JobError as error:
            await progress.fail(self._ctx, self._claim, error)
            log.info("job.failed", job_id=self._claim.job.id, code=error.code)
        finally:
            await self._keeper.close()
            await self._tracker.end()
            self._trainer.discard(self._claim.job.id, self._folder)

    async def _run(self) -> None:
        await self._tracker.start()
        while isinstance(last := await self._train(), Crashed):
            log.warning("job.reseating", job_id=self._claim.job.id)
        await self._tracker.before_the_end()
        await self._end(last)

    async def _end(self, last: Left | Paused) -> None:
        if isinstance(last, Paused):
            paused = await progress.pause(self._ctx, self._claim, last.step)
            log.info("job.paused" if paused else "job.resumed_at_once", job_id=self._claim.job.id, step=last.step)
        else:
            await self._publisher.finish()
            log.info("job.trained", job_id=self._claim.job.id)

    async def _train(self) -> Left | Paused | Crashed:
        """One stay in a slot; answers how it ended."""
        job_id = self._claim.job.id
        await stage_job(self._ctx, self._claim, self._base, self._folder)
        async with aclosing(self._trainer.seat(job_id, self._folder)) as reports:  # closing empties the slot
            async for report in reports:
                match report:
                    case Crashed():
                        await self._steps.flush()
                        await self._charge(report)
                        await self._keeper.settle(snapshots=True)
                        return report
                    case Left() | Paused():
                        await self._steps.flush()
                        finished = isinstance(report, Left) and report.finished
                        await self._keeper.settle(snapshots=not finished)
                        if isinstance(report, Left) and not finished:
                            raise LeaseLost(job_id)  # the worker is stopping and asked the trainer to let it go
                        return report
                    case _:
                        await self._relay(report)
        raise AssertionError("the trainer's reports ended without a last one")

    async def _relay(self, report: Report) -> None:
        self._keeper.check()
        match report:
            case Seated():
                await self._seated(report)
            case Stepped():
                await self._steps.add(report)
                self._tracker.step(report.metrics)
            case Snapshotted():
                await self._steps.flush()
                self._keeper.snapshot(report)
            case Checkpointed():
                await self._steps.flush()
                self._keeper.publish(partial(self._publisher.checkpoint, report))
            case Failed():
                await self._steps.flush()
                raise JobError(report.code, report.message, report.param)

    async def _seated(self, report: Seated) -> None:
        ready = self._trainer.ready
        assert ready is not None
        record = BaseRecord(self._base.id, self._base.public_source, ready.revision, ready.hashes)
        await bases.register(self._ctx, record)
        self._publisher.trained_by(ready)
        if report.step:
            log.info("job.continued", job_id=self._claim.job.id, step=report.step)
        if report.difference:
            warning = wording.resumed_elsewhere(report.step, report.difference)
            await progress.warn(self._ctx, self._claim, warning)

    async def _charge(self, crash: Crashed) -> None:
        """A crash counts against the job whose turn it was, and fails it at the limit."""
        log.warning("trainer.crashed", job_id=crash.job_id, guilty=crash.guilty)
        if not crash.guilty:
            return
        crashes = await progress.charge_crash(self._ctx, self._claim)
        if crashes >= self._ctx.settings.crash_limit:
            raise JobError(
                "trainer_crashed",
                f"The job was stopped because the trainer crashed {crashes} times while training it. "
                "A smaller batch_size or shorter examples may help; the worker's log says more.",
            )
