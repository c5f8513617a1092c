"""A job's steps on their way to the database: gathered for a moment, written in batches, timed for the estimate."""

import time

from service.operations.progress import HeldJob, StepRecord
from workers.trainer.protocol import Stepped

WRITE_EVERY_SECONDS = 0.5
SMOOTHING = 0.9  # of the moving average over seconds per step, neighbours' turns included


class StepRelay:
    """The metrics of one claim."""

    def __init__(self, held: HeldJob) -> None:
        self._held = held
        self._waiting: list[StepRecord] = []
        self._written_at = time.monotonic()
        self._stepped_at: float | None = None
        self._seconds_per_step: float | None = None

    async def add(self, report: Stepped) -> None:
        """Takes one step; writes what waits when the moment has come."""
        self._time_step()
        self._waiting.append(StepRecord(report.step, report.trained_tokens, report.metrics))
        if time.monotonic() - self._written_at >= WRITE_EVERY_SECONDS:
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits."""
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
