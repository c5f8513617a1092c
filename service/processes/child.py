"""A child process, from its parent's side: started in a group of its own, restarted if wanted, ended with its group.

Does not depend on any command or protocol: the parent decides what a child runs and how it is asked to end. The other
side is `service.processes.parent`.
"""

import asyncio
import os
import signal
import time
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

log = structlog.get_logger()
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 60.0
LINE_LIMIT_BYTES = 1024 * 1024


class ChildProcess(Protocol):
    """A process that was started here: `asyncio.subprocess.Process`, or one of `service.processes.forks`."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    @property
    def stdin(self) -> StreamWriter | None: ...

    @property
    def stdout(self) -> StreamReader | None: ...

    async def wait(self) -> int: ...

    def send_signal(self, signal: int) -> None: ...


class Start(Protocol):
    """How a child is started: `start_child`, or `service.processes.forks.start_fork`."""

    async def __call__(
        self, command: Sequence[str], environment: Mapping[str, str], *, stdin: int = ..., stdout: int | None = ...
    ) -> ChildProcess: ...


async def start_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int = PIPE,
    stdout: int | None = None,
    stderr: int | None = None,
) -> Process:
    """Starts `command` in a session of its own: Ctrl-C does not reach it, and `kill_group` ends all that it started.

    By default the child logs where we log, and its stdin is a pipe that ends when this process does, for whatever
    reason. Raises OSError where the command cannot be run.
    """
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        start_new_session=True,
        limit=LINE_LIMIT_BYTES,
    )


def kill_group(process: ChildProcess) -> None:
    """Kills what is left of the child and of everything in its group. May be called when nothing is left."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Backoff:
    """How long to wait before a restart: doubled for each run in a row that ended early, up to a limit."""

    def __init__(
        self, first_seconds: float = FIRST_PAUSE_SECONDS, limit_seconds: float = LONGEST_PAUSE_SECONDS
    ) -> None:
        self._first_seconds = first_seconds
        self._limit_seconds = limit_seconds
        self._early_ends = 0  # in a row

    def after(self, good: bool) -> float:
        """Seconds to wait after a run that was good or ended early."""
        self._early_ends = 0 if good else self._early_ends + 1
        return min(self._limit_seconds, self._first_seconds * 2.0 ** max(0, self._early_ends - 1))


class KeptChild:
    """A child that is started again whenever it ends, until it is stopped. One process at a time."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: int = PIPE,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_seconds: float,
        prepare: Callable[[], object] | None = None,
        start: Start | None = None,
    ) -> None:
        """`prepare` is called before each start; `stop_signal` asks the child to end within `stop_seconds`.

        `start` is `start_child`, unless it says otherwise.
        """
        self._start = start or start_child
        self._name = name
        self._command = command
        self._environment = environment
        self._stdin = stdin
        self._stop_signal = stop_signal
        self._stop_seconds = stop_seconds
        self._prepare = prepare
        self._process: ChildProcess | None = None

    async def keep(self) -> None:
        """Starts the child, and again whenever it ends, waiting longer when it ends early. Until cancelled."""
        backoff = Backoff()
        while True:
            if self._prepare is not None:
                self._prepare()
            started_at = time.monotonic()
            self._process = await self._start(self._command, self._environment, stdin=self._stdin)
            log.info("child.started", child=self._name, pid=self._process.pid)
            try:
                code = await self._process.wait()
            finally:
                if self._process.returncode is not None:
                    kill_group(self._process)  # processes that it has started may still run
            pause_seconds = backoff.after(good=time.monotonic() - started_at > STEADY_SECONDS)
            log.warning("child.ended", child=self._name, code=code, restart_in_seconds=pause_seconds)
            await asyncio.sleep(pause_seconds)

    async def stop(self) -> None:
        """Asks the child to end, waits, and kills its whole group. Only after `keep` was cancelled."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(self._stop_signal)
        try:
            async with asyncio.timeout(self._stop_seconds):
                await process.wait()
        except TimeoutError:
            log.warning("child.killed", child=self._name, after_seconds=self._stop_seconds)
        kill_group(process)
