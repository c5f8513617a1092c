"""The parent's side of a trainer: starts the child when a job needs it, again when it crashed, and ends it.

Entered from `workers.jobs.train` (`seat`) and `workers.supervisor.trainers` (`beat`, `leave`, `stop`). Holds no
tensor and imports none; counts no crashes against a job: `Crashed` only says whose turn it was.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import structlog

from service.processes.child import Backoff
from workers.trainer.parent.child import Child
from workers.trainer.protocol import Beat, Crashed, Leave, Left, Pause, Ready, Report, Seat

log = structlog.get_logger()


class TrainerHandle:
    """One trainer: a process that runs whenever a job is seated, restarted after a crash."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        start_seconds: float = 600.0,
        stop_seconds: float = 10.0,
        backoff_seconds: float = 0.5,
        backoff_limit_seconds: float = 30.0,
    ) -> None:
        self._command = command
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._backoff = Backoff(backoff_seconds, backoff_limit_seconds)
        self._child: Child | None = None
        self._ready: Ready | None = None
        self._loaded = False
        self._starting = asyncio.Lock()
        self._stopped = False
        self._discarding: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> Ready | None:
        """The child's report that its base is loaded; during a restart, the previous child's."""
        return self._ready

    @property
    def loaded(self) -> bool:
        """Whether the last child that was started has loaded its base."""
        return self._loaded

    @property
    def pid(self) -> int | None:
        """The process id of the running child; None when none runs."""
        return self._child.pid if self._child is not None and not self._child.ended else None

    async def start(self) -> bool:
        """Starts the child before a job needs it, so that no job waits for imports and weights.

        Returns whether it has loaded its base; True if the handle is stopped meanwhile.
        """
        return await self._running_child() is None or self._loaded

    async def seat(self, job_id: str, folder: Path) -> AsyncGenerator[Report | Crashed, None]:
        """Trains the job in `folder` and yields its reports in order, without `Ready` and `Turn`.

        `folder` is absolute: its path is sent to the child, and the folders in the reports are below it.

        Ends after `Left`, `Paused`, `Failed` or `Crashed`; leaving the loop earlier makes the job leave its slot.
        `Left` has `finished=False` also when the handle was stopped. A slow reader makes the trainer wait; no report is
        lost. A job that is still seated is seated again once it has left.
        """
        child = await self._running_child()
        if child is None:
            yield Left(job_id=job_id, finished=False)
            return
        mailbox = await child.open(job_id)
        try:
            child.send(Seat(job_id=job_id, folder=str(folder)))
            while (report := await mailbox.take()) is not None:
                yield report
        finally:
            mailbox.close()
            if child.holds(job_id, mailbox):
                child.send(Leave(job_id=job_id))

    def discard(self, job_id: str, folder: Path) -> None:
        """Removes the job's folder once its stay is over: until then the trainer may write into it. `stop` waits."""
        task = asyncio.create_task(self._discard(self._child, job_id, folder))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    async def leave(self, job_id: str, snapshot: bool = False) -> None:
        """Makes the job leave its slot at the next whole step; `Left` is its last report. May be called twice."""
        if self._child is not None and self._child.holds(job_id):
            self._child.send(Leave(job_id=job_id, snapshot=snapshot))

    async def pause(self, job_id: str) -> None:
        """Makes the job pause after its next step; `Paused` is its last report. May be called twice."""
        if self._child is not None and self._child.holds(job_id):
            self._child.send(Pause(job_id=job_id))

    async def beat(self) -> None:
        """Keeps a running child alive for another lease."""
        if self._child is not None:
            self._child.send(Beat())

    async def rest(self) -> None:
        """Ends the child until a job is seated again: another base needs its memory. Only while no job is seated."""
        async with self._starting:
            if self._child is not None:
                await self._child.stop(self._stop_seconds)
                self._child = None

    async def stop(self) -> None:
        """Ends the child, by force if necessary, and starts no other. May be called twice."""
        self._stopped = True
        if self._child is not None:
            await self._child.stop(self._stop_seconds)
        await asyncio.gather(*self._discarding)

    async def _discard(self, child: Child | None, job_id: str, folder: Path) -> None:
        if child is not None:
            await child.left(job_id)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _running_child(self) -> Child | None:
        """A child that is ready, or that ended while it started; None once stopped."""
        async with self._starting:
            if self._child is None or self._child.ended:
                await self._pause(self._child)
                if self._stopped:
                    return None
                self._child = await Child.start(self._command)
                if self._stopped:  # while it started
                    await self._child.stop(self._stop_seconds)
            ready = await self._child.wait_ready(self._start_seconds)
            self._ready, self._loaded = ready or self._ready, ready is not None
            return None if self._stopped else self._child

    async def _pause(self, before: Child | None) -> None:
        """Waits before a restart: longer each time, until a child has done a step."""
        if before is None:
            return
        seconds = self._backoff.after(good=before.worked)
        log.warning("trainer.restarting", seconds=seconds)
        await asyncio.sleep(seconds)
