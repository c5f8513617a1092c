"""One trainer process as its parent sees it: started once, its reports read until it ends, one mailbox per seated job.

Does not depend on what a job is for. `handle` decides when the next process starts.
"""

import asyncio
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Sequence

import structlog

from service.processes.child import ChildProcess, kill_group
from service.processes.forks import start_fork
from workers.trainer.launch import EXIT_PARENT_SILENT, trainer_environment
from workers.trainer.protocol import (
    Command,
    Crashed,
    Failed,
    Left,
    Paused,
    Ready,
    Report,
    Stepped,
    Turn,
    decode_report,
    encode,
)

LIMIT_REPORTS = 256  # in one mailbox
log = structlog.get_logger()


class Mailbox:
    """The reports of one seated job, from the reader of the pipe to the task that runs the job.

    Bounded: a slow reader makes the process wait, and no report is lost. Written by one task, read by one other.
    """

    def __init__(self) -> None:
        self._reports: deque[Report | Crashed] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, report: Report) -> None:
        """Waits while the mailbox is full; drops the report when it is closed."""
        while len(self._reports) >= LIMIT_REPORTS and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if not self._closed:
            self._add(report)

    def close(self, last: Crashed | Left | None = None) -> None:
        """Accepts no more reports after `last`; those in the mailbox can still be taken."""
        if last is not None and not self._closed:
            self._add(last)
        self._closed = True
        self._changed.set()

    async def take(self) -> Report | Crashed | None:
        """The next report; None when the mailbox is closed and empty."""
        while not self._reports and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if not self._reports:
            return None
        self._changed.set()
        return self._reports.popleft()

    def _add(self, report: Report | Crashed) -> None:
        self._reports.append(report)
        self._changed.set()


class Child:
    """The process ends when its parent does, even when the parent is killed: its stdin ends then."""

    def __init__(self, process: ChildProcess) -> None:
        self.ended = False
        self.worked = False  # whether it has done at least one step
        self._process = process
        self._mailboxes: dict[str, Mailbox] = {}
        self._ready: Ready | None = None
        self._turn: str | None = None
        self._stopping = False
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str]) -> "Child":
        """Starts the process; `wait_ready` returns when it can be used."""
        process = await start_fork(command, trainer_environment(), stdout=PIPE)
        log.info("trainer.started", pid=process.pid)
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_ready(self, seconds: float) -> Ready | None:
        """Its `Ready` report, once the base is loaded; None when it ended, or was killed after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self._ready is None and not self.ended:
                    await self._next_change()
        except TimeoutError:
            log.error("trainer.start_timeout", pid=self.pid, seconds=seconds)
            kill_group(self._process)
            await self._reading
        return self._ready

    async def open(self, job_id: str) -> Mailbox:
        """A mailbox for the reports of `job_id`; waits until an earlier stay of the job is over."""
        while job_id in self._mailboxes:
            await self.left(job_id)
        mailbox = Mailbox()
        if self.ended:
            mailbox.close(self._last_report(job_id))
        else:
            self._mailboxes[job_id] = mailbox
        return mailbox

    def holds(self, job_id: str, mailbox: Mailbox | None = None) -> bool:
        """Whether the job is seated (with this mailbox): its last report has not come."""
        held = self._mailboxes.get(job_id)
        return held is not None and mailbox in (None, held)

    async def left(self, job_id: str) -> None:
        """Returns when the job's stay is over, at once where it has none: the process no longer uses its folder."""
        stay = self._mailboxes.get(job_id)
        while stay is not None and self.holds(job_id, stay):
            await self._next_change()

    def send(self, command: Command) -> None:
        """Writes without waiting: commands are few and short, and the child always reads."""
        assert self._process.stdin is not None
        if not self.ended and not self._stopping:
            self._process.stdin.write(encode(command))

    async def stop(self, seconds: float) -> None:
        """Ends the process, by force after `seconds`; every job that is still seated gets `Left`."""
        self._stopping = True
        for job_id, mailbox in self._mailboxes.items():
            mailbox.close(self._last_report(job_id))  # first: the reader must not wait for space in a full mailbox
        assert self._process.stdin is not None
        self._process.stdin.close()
        done, _ = await asyncio.wait({self._reading}, timeout=seconds)
        if not done:
            kill_group(self._process)
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while (line := await self._process.stdout.readline()).endswith(b"\n"):  # else it ended within a line
                await self._deliver(decode_report(line))
        except ValueError as error:  # not a report, or a line over the limit; its text may be of a user's rows
            log.error("trainer.garbled", pid=self.pid, reason=type(error).__name__)
        finally:
            await self._end()

    async def _deliver(self, report: Report) -> None:
        if isinstance(report, Ready):
            self._ready = report
        elif isinstance(report, Turn):
            self._turn = report.job_id
            return
        elif report.job_id in self._mailboxes:
            self.worked = self.worked or isinstance(report, Stepped)
            await self._mailboxes[report.job_id].put(report)
            if isinstance(report, Left | Paused | Failed):
                self._mailboxes.pop(report.job_id).close()
        self._changed.set()

    async def _end(self) -> None:
        """The pipe has ended, so the process has ended or will at once: each seated job gets its last report."""
        kill_group(self._process)
        await self._process.wait()
        log.info("trainer.ended", pid=self.pid, code=self._process.returncode, stopped=self._stopping)
        self.ended = True
        while self._mailboxes:
            job_id, mailbox = self._mailboxes.popitem()
            mailbox.close(self._last_report(job_id))
        self._changed.set()

    def _last_report(self, job_id: str) -> Crashed | Left:
        if self._stopping:
            return Left(job_id=job_id, finished=False)
        parent_silent = self._process.returncode == EXIT_PARENT_SILENT  # the parent's fault, not the job's
        return Crashed(job_id, guilty=job_id == self._turn and not parent_silent)

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
