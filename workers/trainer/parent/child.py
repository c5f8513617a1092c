"""One life of a trainer process, seen from its parent: started once, read to its end, buried.

Knows pipes, reports and mailboxes; must not know what a job is for. A new life is `handle`'s to begin.
"""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence

import structlog

from service.processes.child import kill_group, start_child
from workers.trainer.launch import EXIT_PARENT_SILENT, trainer_environment
from workers.trainer.parent.mailbox import Mailbox
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

log = structlog.get_logger()


class Child:
    """Ends by itself when this process does: its stdin ends then, whatever killed us."""

    def __init__(self, process: Process) -> None:
        self.ended = False
        self.worked = False  # it did at least one step
        self._process = process
        self._mailboxes: dict[str, Mailbox] = {}
        self._ready: Ready | None = None
        self._turn: str | None = None
        self._stopping = False
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str]) -> "Child":
        """Starts the process; `wait_ready` says when it can be used."""
        process = await start_child(command, trainer_environment(), stdout=PIPE)
        log.info("trainer.started", pid=process.pid)
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_ready(self, seconds: float) -> Ready | None:
        """What it says once the base is loaded; None when it ended instead. Killed after `seconds` without either."""
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
        """A mailbox for the reports of `job_id`; waits until the job has left after an earlier stay."""
        while job_id in self._mailboxes:
            await self.left(job_id)
        mailbox = Mailbox()
        if self.ended:
            mailbox.close(self._last_word(job_id))
        else:
            self._mailboxes[job_id] = mailbox
        return mailbox

    def holds(self, job_id: str, mailbox: Mailbox | None = None) -> bool:
        """Whether the job (with this mailbox) has not had its last report."""
        held = self._mailboxes.get(job_id)
        return held is not None and mailbox in (None, held)

    async def left(self, job_id: str) -> None:
        """Returns when the job's stay is over, at once where it has none: the process touches its folder no more."""
        stay = self._mailboxes.get(job_id)
        while stay is not None and self.holds(job_id, stay):
            await self._next_change()

    def send(self, command: Command) -> None:
        """Writes without waiting: commands are few and short, and the child always reads."""
        assert self._process.stdin is not None
        if not self.ended and not self._stopping:
            self._process.stdin.write(encode(command))

    async def stop(self, seconds: float) -> None:
        """Ends the process, by force after `seconds`; every job still seated is told that it has left."""
        self._stopping = True
        for job_id, mailbox in self._mailboxes.items():
            mailbox.close(self._last_word(job_id))  # before reading on: the reader must not wait for a full one
        assert self._process.stdin is not None
        self._process.stdin.close()
        done, _ = await asyncio.wait({self._reading}, timeout=seconds)
        if not done:
            kill_group(self._process)
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                await self._deliver(decode_report(line))
        except ValueError:  # not a report, or a line over the limit
            log.exception("trainer.garbled", pid=self.pid)
        finally:
            await self._bury()

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

    async def _bury(self) -> None:
        """The pipe has ended, so the process has or is about to; its jobs learn whose turn it was."""
        kill_group(self._process)
        await self._process.wait()
        log.info("trainer.ended", pid=self.pid, code=self._process.returncode, stopped=self._stopping)
        self.ended = True
        while self._mailboxes:
            job_id, mailbox = self._mailboxes.popitem()
            mailbox.close(self._last_word(job_id))
        self._changed.set()

    def _last_word(self, job_id: str) -> Crashed | Left:
        if self._stopping:
            return Left(job_id=job_id, finished=False)
        ours = self._process.returncode == EXIT_PARENT_SILENT  # we were silent, not the job at fault
        return Crashed(job_id, guilty=job_id == self._turn and not ours)

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
