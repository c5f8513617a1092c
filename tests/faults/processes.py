"""The processes of an installation, each started, frozen and killed by itself, as on machines of their own.

Nothing here restarts a process behind a test's back: what an init system would do, the fault does.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.running_service import ROOT, alive, command_line, descendants, kill, wait_for

STOP_SECONDS = 40.0


@dataclass
class Process:
    """One command line with its own log; `start` after its end starts it anew."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        others = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
        with self.log.open("ab") as stream:
            self.popen = subprocess.Popen(
                [sys.executable, *self.arguments],
                cwd=ROOT,
                env=others | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def stop(self) -> None:
        """SIGTERM, and a bounded wait."""
        assert self.popen is not None
        self.popen.terminate()
        self.popen.wait(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL for the process alone; its children must notice by themselves."""
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait(10)

    def kill_all(self) -> None:
        """SIGKILL for it and everything below it, at one moment."""
        if self.popen is None:
            return
        for pid in [self.pid, *descendants(self.pid)]:
            kill(pid)
        self.popen.wait(10)

    def freeze(self) -> None:
        kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        kill(self.pid, signal.SIGCONT)

    def below(self, *words: str) -> list[int]:
        """Pids of the descendants whose command line holds all the words."""
        return [pid for pid in descendants(self.pid) if all(word in command_line(pid) for word in words)]

    def restart(self) -> None:
        if self.running:
            self.kill_all()
        self.start()


def wait_until_gone(pids: list[int], seconds: float = 15.0) -> None:
    """Children of what was killed end by themselves within this time."""
    wait_for(lambda: not any(alive(pid) for pid in pids), seconds, f"processes {pids} end by themselves")
