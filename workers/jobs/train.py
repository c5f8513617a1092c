"""ONE JOB FROM QUEUED TO TRAINED: stage, seat, relay, publish. Read this first; `announce` has the rest.

    stage     tokenised rows, the newest intact snapshot and job.json into a folder
    seat      the trainer gives the job a slot and reports; after a crash it is seated again, from its last snapshot
    relay     steps become metrics events; snapshots and checkpoints are stored meanwhile (`background_uploads`)
    publish   the last adapter becomes an immutable artifact under a name of its own
    end       one fenced transaction: trained, to be announced next; `paused`, if its user asked for it; or released

Has no tensors. Cancelling this coroutine (lease lost, worker stopping) empties the slot.
"""

import math
import time
from contextlib import aclosing
from functools import partial
from pathlib import Path

import structlog

from service.domain import event as wording
from service.domain.errors import JobError
from service.domain.event import NewEvent
from service.domain.job import Metrics
from service.operations import bases
from service.operations.bases import BaseRecord
from service.operations.progress import HeldJob, StepRecord
from service.recipes.base import Base
from workers.files.disk import disk_errors
from workers.integrations.tracker import Tracker
from workers.jobs.background_uploads import BackgroundUploads
from workers.jobs.loading import BaseNotLoaded
from workers.jobs.publishing import Publisher
from workers.jobs.staging import stage_job
from workers.trainer.parent.handle import TrainerHandle
from workers.trainer.protocol import Checkpointed, Crashed, Failed, Left, Paused, Report, Seated, Snapshotted, Stepped

log = structlog.get_logger()
WRITE_EVERY_SECONDS = 0.5
SMOOTHING = 0.9  # of the moving average over seconds per step, in which other jobs take their turns


class JobRun:
    """One claim of one job on one trainer."""

    def __init__(self, held: HeldJob, base: Base, trainer: TrainerHandle, scratch: Path, tracker: Tracker) -> None:
        self._ctx = held.ctx
        self._held = held
        self._tracker = tracker
        self._base = base
        self._trainer = trainer
        self._folder = scratch / f"{held.job.id}-{held.attempt}"
        self._steps = StepRelay(held)
        self._uploads = BackgroundUploads(held)
        self._publisher = Publisher(held, base)

    async def run(self) -> None:
        """Trains the job to the end, pauses it, releases it, or fails it.

        Raises LeaseLost, BaseNotLoaded, and what unavailable parts raise.
        """
        log.info("job.claimed", job_id=self._held.job.id, attempt=self._held.attempt)
        try:
            with disk_errors():
                await self._run()
        except JobError as error:
            await self._held.fail(error)
            log.info("job.failed", job_id=self._held.job.id, code=error.code)
        finally:
            await self._uploads.close()
            await self._tracker.end()
            self._trainer.discard(self._held.job.id, self._folder)

    async def _run(self) -> None:
        await self._tracker.start()
        while isinstance(last := await self._train(), Crashed):
            log.warning("job.reseating", job_id=self._held.job.id)
        await self._tracker.before_the_end()
        await self._end(last)

    async def _end(self, last: Left | Paused) -> None:
        if isinstance(last, Paused):
            paused = await self._held.pause(last.step)
            log.info("job.paused" if paused else "job.resumed_at_once", job_id=self._held.job.id, step=last.step)
        elif last.finished:
            await self._publisher.finish()
            log.info("job.trained", job_id=self._held.job.id)
        else:  # it was asked to leave its slot: for another project, or because the worker stops
            await self._held.release()
            log.info("job.left", job_id=self._held.job.id, steps=self._held.steps)

    async def _train(self) -> Left | Paused | Crashed:
        """One stay in a slot; returns how it ended."""
        job_id = self._held.job.id
        await stage_job(self._held, self._base, self._folder)
        async with aclosing(self._trainer.seat(job_id, self._folder)) as reports:  # closing empties the slot
            async for report in reports:
                match report:
                    case Crashed() if not self._trainer.loaded:
                        raise BaseNotLoaded(self._base.id, "its trainer ended before the base was loaded")
                    case Crashed():
                        await self._steps.flush()
                        await self._charge(report)
                        await self._uploads.settle(snapshots=True)
                        return report
                    case Left() | Paused():
                        await self._steps.flush()
                        finished = isinstance(report, Left) and report.finished
                        await self._uploads.settle(snapshots=not finished)
                        return report
                    case _:
                        await self._relay(report)
        raise AssertionError("the trainer's reports ended without a last one")

    async def _relay(self, report: Report) -> None:
        self._uploads.check()
        match report:
            case Seated():
                await self._seated(report)
            case Stepped():
                self._held.steps += 1
                if self._held.steps % self._ctx.settings.slot_steps == 0:
                    await self._ctx.queue.put(self._held.job.id)  # another project may have its slot now
                await self._steps.add(report)
                self._tracker.step(_told(report))
            case Snapshotted():
                await self._steps.flush()
                self._uploads.snapshot(report)
            case Checkpointed():
                await self._steps.flush()
                for event in _verdicts(report):
                    await self._held.warn(event)
                self._uploads.publish(partial(self._publisher.checkpoint, report))
            case Failed():
                await self._steps.flush()
                raise JobError(report.code, report.message, report.param)

    async def _seated(self, report: Seated) -> None:
        ready = self._trainer.ready
        assert ready is not None
        record = BaseRecord(self._base.id, self._base.public_source, ready.revision, ready.hashes)
        await bases.register(self._ctx, record)
        self._publisher.trained_by(ready)
        await self._ctx.queue.put(self._held.job.id)  # what was asked of it before it had a slot is asked again
        if report.step:
            log.info("job.continued", job_id=self._held.job.id, step=report.step)
        if report.difference:
            warning = wording.resumed_elsewhere(report.step, report.difference)
            await self._held.warn(warning)

    async def _charge(self, crash: Crashed) -> None:
        """Counts a crash against the job whose turn it was, and fails the job at the limit."""
        log.warning("trainer.crashed", job_id=crash.job_id, guilty=crash.guilty)
        if not crash.guilty:
            return
        crashes = await self._held.charge_crash()
        if crashes >= self._ctx.settings.crash_limit:
            raise JobError(
                "trainer_crashed",
                f"The job was stopped because the trainer crashed {crashes} times while training it. "
                "A smaller batch_size or shorter examples may help; the worker's log has the details.",
            )


class StepRelay:
    """The steps of one claim on their way to the database: written in batches, timed for the estimate."""

    def __init__(self, held: HeldJob) -> None:
        self._held = held
        self._waiting: list[StepRecord] = []
        self._written_at = -math.inf  # the first step is written at once
        self._stepped_at: float | None = None
        self._seconds_per_step: float | None = None

    async def add(self, report: Stepped) -> None:
        """Takes one step; writes those that wait, at most every `WRITE_EVERY_SECONDS`."""
        self._time_step()
        self._waiting.append(StepRecord(report.step, report.trained_tokens, _told(report)))
        if time.monotonic() - self._written_at >= WRITE_EVERY_SECONDS:
            await self.flush()

    async def flush(self) -> None:
        """Writes the steps that wait."""
        steps, self._waiting = self._waiting, []
        self._written_at = time.monotonic()
        if steps:
            await self._held.record_steps(steps, self._seconds_per_step)

    def _time_step(self) -> None:
        now = time.monotonic()
        if self._stepped_at is not None:
            seconds = now - self._stepped_at
            before = seconds if self._seconds_per_step is None else self._seconds_per_step
            self._seconds_per_step = SMOOTHING * before + (1 - SMOOTHING) * seconds
        self._stepped_at = now


def _verdicts(report: Checkpointed) -> list[NewEvent]:
    """Which step was chosen, what was forgotten, what serving another form costs: what a job asked for, at its end.

    A repeated report is harmless: the events have keys.
    """
    found: list[NewEvent] = []
    if report.chosen is not None:
        found += wording.chosen(report.chosen.model_dump())
    if report.forgetting is not None:
        measured = report.forgetting
        found.append(wording.forgetting(measured.tokens, measured.loss_before, measured.loss_after))
    if report.last and report.conversion is not None and report.conversion.enough:
        found.append(wording.converted(report.conversion.model_dump()))
    return found


def _told(report: Stepped) -> Metrics:
    """What the job's user is told of a step: its metrics, and how fast it learns."""
    return {**report.metrics, **report.pace, "trained_tokens": report.trained_tokens}
