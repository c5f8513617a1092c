"""The processes of an installation, each started, frozen and killed by itself, as on machines of their own.

One that ends by itself, as one does that finds a part down at its start, is started again, as by any init system. One
that a test has ended stays down until the test starts it.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.given.forked_process import Started, start_process
from tests.given.running_service import alive, command_line, descendants, kill, wait_for

STOP_SECONDS = 40.0
RESTART_SECONDS = 1.0


@dataclass
class Process:
    """One command line with its own log; `start` after its end starts it again."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    popen: Started | None = field(default=None, init=False)
    _wanted: bool = field(default=False, init=False)
    _changing: threading.RLock = field(default_factory=threading.RLock, init=False)

    def start(self) -> None:
        others = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
        with self._changing, self.log.open("ab") as stream:
            self._wanted = True
            self.popen = start_process(self.arguments, others | self.environment, stream)

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def stop(self) -> None:
        """SIGTERM, and a bounded wait."""
        popen = self._unwanted()
        popen.terminate()
        popen.wait(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL for the process alone; its children must notice by themselves."""
        popen = self._unwanted()
        popen.kill()
        popen.wait(10)

    def kill_all(self) -> None:
        """SIGKILL for it and everything below it, at one moment."""
        if self.popen is None:
            return
        popen = self._unwanted()
        if popen.poll() is not None:
            return  # its pid may be another process's by now
        for pid in [popen.pid, *descendants(popen.pid)]:
            kill(pid)
        popen.wait(10)

    def freeze(self) -> None:
        kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        kill(self.pid, signal.SIGCONT)

    def below(self, *words: str) -> list[int]:
        """Pids of the descendants whose command line holds all the words."""
        return [pid for pid in descendants(self.pid) if all(word in command_line(pid) for word in words)]

    def restart(self) -> None:
        self.kill_all()
        self.start()

    def revive(self) -> None:
        """Starts it again if it ended though no test wanted that."""
        with self._changing:
            if self._wanted and not self.running:
                self.start()

    def _unwanted(self) -> Started:
        """From here on nobody starts it but the test."""
        with self._changing:
            self._wanted = False
            assert self.popen is not None
            return self.popen


@contextmanager
def kept_running(processes: Sequence[Process]) -> Iterator[None]:
    """Inside, what ends by itself is started again after a second."""
    over = threading.Event()

    def keep() -> None:
        while not over.wait(RESTART_SECONDS):
            for process in processes:
                process.revive()

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def wait_until_gone(pids: list[int], seconds: float = 60.0) -> None:
    """Children of what was killed end by themselves; one that has only begun imports its libraries first."""
    wait_for(lambda: not any(alive(pid) for pid in pids), seconds, f"processes {pids} end by themselves")
