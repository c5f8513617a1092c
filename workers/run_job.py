"""ONE JOB FROM QUEUED TO FINISHED: stage, seat, relay, publish, finish. Read this first.

    stage     tokenised rows, the newest good snapshot and job.json into a folder
    seat      the trainer gives the job a slot and reports; a crash seats it again, from its last snapshot
    relay     steps become metrics events, snapshots and checkpoints go to storage as they come
    publish   the last adapter becomes an immutable artifact under a name of its own
    finish    one fenced transaction: model row, result file, `succeeded`; or `paused`, when its user asked for that

Knows nothing of tensors. Whoever cancels this coroutine (lease lost, worker stopping) gets the slot emptied.
"""

import asyncio
import shutil
import time
from contextlib import aclosing
from pathlib import Path

import structlog

from service.domain import event as wording
from service.domain.base import Base
from service.domain.errors import JobError, LeaseLost
from service.domain.job import Claim, Snapshot
from service.operations import bases, progress
from service.operations.bases import BaseRecord
from service.operations.context import Context
from workers.integrations.tracker import Tracker
from workers.publishing import Publisher
from workers.relay import StepRelay
from workers.staging import stage_job, store_folder
from workers.trainer.handle import TrainerHandle
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
        self._snapshot_step: int | None = None  # of this stay in a slot
        self._publisher = Publisher(ctx, claim, base)

    async def run(self) -> None:
        """Trains to the end and finishes or fails the job. Raises LeaseLost and the errors of parts that are away."""
        log.info("job.claimed", job_id=self._claim.job.id, attempt=self._claim.attempt)
        try:
            await self._tracker.start()
            while isinstance(last := await self._train(), Crashed):
                log.warning("job.reseating", job_id=self._claim.job.id)
            await self._tracker.before_the_end()
            await self._end(last)
        except JobError as error:
            await progress.fail(self._ctx, self._claim, error)
            log.info("job.failed", job_id=self._claim.job.id, code=error.code)
        finally:
            await self._tracker.end()
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _end(self, last: Left | Paused) -> None:
        if isinstance(last, Paused):
            paused = await progress.pause(self._ctx, self._claim, last.step)
            log.info("job.paused" if paused else "job.resumed_at_once", job_id=self._claim.job.id, step=last.step)
        else:
            await self._publisher.finish()
            log.info("job.succeeded", job_id=self._claim.job.id)

    async def _train(self) -> Left | Paused | Crashed:
        """One stay in a slot; answers how it ended."""
        job_id = self._claim.job.id
        self._snapshot_step = None
        await stage_job(self._ctx, self._claim, self._base, self._folder)
        async with aclosing(self._trainer.seat(job_id, self._folder)) as reports:  # closing empties the slot
            async for report in reports:
                match report:
                    case Crashed():
                        await self._steps.flush()
                        await self._charge(report)
                        return report
                    case Left() | Paused():
                        await self._steps.flush()
                        if isinstance(report, Left) and not report.finished:
                            raise LeaseLost(job_id)  # the worker is stopping and asked the trainer to let it go
                        return report
                    case _:
                        await self._relay(report)
        raise AssertionError("the trainer's reports ended without a last one")

    async def _relay(self, report: Report) -> None:
        match report:
            case Seated():
                await self._seated(report)
            case Stepped():
                await self._steps.add(report)
                self._tracker.step(report.metrics)
            case Snapshotted():
                await self._steps.flush()
                await self._store_snapshot(report)
            case Checkpointed():
                await self._steps.flush()
                await self._publisher.checkpoint(report)
            case Failed():
                await self._steps.flush()
                raise JobError(report.code, report.message, report.param)

    async def _seated(self, report: Seated) -> None:
        ready = self._trainer.ready
        assert ready is not None
        record = BaseRecord(self._base.id, self._base.public_source, ready.revision, ready.hashes)
        await bases.register(self._ctx, record)
        self._publisher.trained_by(ready)
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

    async def _store_snapshot(self, report: Snapshotted) -> None:
        if report.step == self._snapshot_step:
            return  # asked for at a step that has one already: the same bits
        job_id, folder = self._claim.job.id, Path(report.folder)
        prefix = f"jobs/{job_id}/snapshots/{self._claim.attempt}-{report.step}-{time.time_ns()}/"
        files = await store_folder(self._ctx.storage, folder, prefix)
        snapshot = Snapshot(job_id, report.step, prefix, files)
        for old in await progress.record_snapshot(self._ctx, self._claim, snapshot):
            for name in old.files:
                await self._ctx.storage.delete(old.prefix + name)
        self._snapshot_step = report.step
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
