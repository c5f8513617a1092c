"""A process of ours for tests: the command, environment and log that are asked for, forked instead of started normally.

Imports are most of what `luthierd up` or a worker costs. The fork server of these tests has done them once, and a
process that is forked from it is what a new one is (tests/unit/processes/test_forks.py), with all that it starts below
it, so that it can be listed and killed in the same ways: it begins in `main`, here, which gives a process that would
start a fork server one that is forked from itself. Without forks, and for other programs, it is `subprocess.Popen`.
"""

import atexit
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

from setproctitle import setproctitle

from service.processes.fork_server import ForkServer, Request, become
from service.processes.forks import ADDRESS, MODULES, fork_server

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0  # the fork server may still be importing
# A fork of what has imported torch costs as much as the command's own imports, so the command has a server of its own.
CLIENT = (
    "luthier",
    "luthier.cli.main",
    "httpx",
    "rich.console",
    "rich.progress",
    "rich.table",
)  # what it imports late too
WITH_FORKS = {("service", "up"), ("workers", "train")}  # what starts a fork server of its own
_STARTING = threading.Lock()


class Started(Protocol):
    """What tests use of a process: `subprocess.Popen` has it, and a fork."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def fork_address(modules: Sequence[str] = MODULES) -> str:
    """Where the tests' fork server of these modules listens; empty where forks are not safe. Ends with them.

    Threads may ask, and from any folder: the server finds this module at all times.
    """
    with _STARTING:
        return _started_server(modules)


@cache
def _started_server(modules: Sequence[str]) -> str:
    others = os.environ.pop(ADDRESS, None)  # a test may have one of its own, which ends before this one
    stack = ExitStack()
    stack.enter_context(fork_server(modules, ROOT))
    atexit.register(stack.close)
    address = os.environ.pop(ADDRESS, "")
    if others is not None:
        os.environ[ADDRESS] = others
    return address


def forking_environment() -> dict[str, str]:
    """This process's environment, in which a program that would start a fork server of its own uses that of the tests.

    Its children are forks of that, so they are not below it and do not end with it when it is killed.
    """
    return {**os.environ, ADDRESS: fork_address()}


def start_process(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: BinaryIO,
    stdin: int | None = None,
    stderr: BinaryIO | None = None,
    *,
    folder: Path = ROOT,
) -> Started:
    """`python` with these arguments in a session of its own, with stdout in `log`, and stderr if no other is given.

    `stdin` is a descriptor, which the caller closes; without one there is nothing to read.
    """
    if arguments[0] == "-m" and (address := fork_address(CLIENT if arguments[1] == "luthier" else MODULES)):
        request = Request("tests.given.forked_process", list(arguments[1:]), dict(environment), str(folder))
        return _Forked(address, request, (stdin, log, stderr or log))
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=log,
        stderr=subprocess.STDOUT if stderr is None else stderr,
        start_new_session=True,
    )


def output_of(arguments: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float = 300) -> str:
    """What `python` with these arguments writes to stdout, in this process's environment and what is added to it.

    Raises AssertionError with both outputs where it fails, and `subprocess.TimeoutExpired`; then it has been killed.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = start_process(arguments, {**os.environ, **(environment or {})}, output, stderr=errors)
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        written = []
        for file in (output, errors):
            file.seek(0)
            written.append(file.read().decode(errors="replace"))
    assert code == 0, "".join(written)
    return written[0]


class _Forked:
    """One fork. Its parent is the fork server, which writes its status to `_server`."""

    def __init__(self, address: str, request: Request, streams: tuple[int | None, BinaryIO, BinaryIO]) -> None:
        stdin, stdout, stderr = streams
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(START_SECONDS)
        connection.connect(address)
        with Path(os.devnull).open("rb") as nothing:
            given = nothing.fileno() if stdin is None else stdin
            request.send(connection, [given, stdout.fileno(), stderr.fileno()])
        self._connection = connection
        self._server = connection.makefile("rb")
        self._reading = threading.Lock()
        self.pid = int(self._server.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, seconds: float | None) -> int | None:
        with self._reading:
            if self.returncode is None and select.select([self._connection], [], [], seconds)[0]:
                self.returncode = int(self._server.readline())  # no number: the fork server is dead, and so the test
                self._server.close()
                self._connection.close()
            return self.returncode


@contextmanager
def ending_with_us(
    arguments: Sequence[str], environment: Mapping[str, str], stop_seconds: float = 20.0
) -> Iterator[Started]:
    """A process with `--die-with-parent`, which writes where we write; ended, at the latest, when the block ends."""
    reading, writing = os.pipe()
    try:
        with os.fdopen(2, "wb", closefd=False) as log:
            process = start_process(arguments, environment, log, stdin=reading)
        os.close(reading)
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(stop_seconds)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        os.close(writing)


def main() -> None:
    """In the fork: `python -m MODULE ARGUMENT...`, as its command line says from now on."""
    module, *arguments = sys.argv[1:]
    if (module, *arguments[:1]) in WITH_FORKS:
        os.environ[ADDRESS] = _own_fork_server()
    setproctitle(" ".join([sys.executable, "-m", module, *arguments]))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _own_fork_server() -> str:
    """What `fork_server()` starts, as a fork: a child of this process that ends with it. Returns its address."""
    address = Path(tempfile.mkdtemp(prefix="luthier-")) / "forks"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen(64)
    ours, theirs = os.pipe()
    if server := os.fork():
        os.close(ours)  # `theirs` stays open for as long as this process lives
        listener.close()
        atexit.register(shutil.rmtree, address.parent, ignore_errors=True)
        atexit.register(os.kill, server, signal.SIGKILL)  # runs first
        return str(address)
    os.close(theirs)
    os.dup2(ours, 0)
    os.close(ours)
    setproctitle(" ".join([sys.executable, "-m", "service.processes.fork_server", str(address)]))
    request = ForkServer(listener).run()
    listener.close()
    if request is not None:
        become(*request)
    else:
        with suppress(OSError):
            address.unlink()
            address.parent.rmdir()
    sys.exit()


if __name__ == "__main__":
    main()
