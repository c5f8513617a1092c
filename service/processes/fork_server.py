"""The fork server: a process that has imported what takes seconds, and becomes a new process in milliseconds.

`python -m service.processes.fork_server ADDRESS SOCKET MODULE...`, started and asked by `service.processes.forks`.

Importing torch and transformers takes 4 CPU seconds, and trainers, engines and workers all need them. The server
imports them once and then forks: a fork runs `python -m MODULE` with the arguments, environment, folder and standard
streams of the request, in a session of its own. Before a fork the server runs nothing but imports of libraries, so a
fork differs from a new process only in how long it takes to start and to end (`become`).

One request per connection: a length, a JSON object, and the three streams as file descriptors. The response is the
fork's process id, and once it has ended its exit status, each a line. Ends when its stdin does, and by no SIGTERM or
SIGINT: without it nobody would learn how the forks end. They take signals as any process does, and end as any child
does, by their own stdin.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from setproctitle import setproctitle

from service.processes.imports import UNWANTED, without
from service.processes.parent import leave_signals_to_parent, take_signals_again

LENGTH = struct.Struct("!I")
STREAMS = 3  # stdin, stdout, stderr
LIMIT_BYTES = 16 * 1024 * 1024  # of a request: arguments and environment are below 2 MiB on Linux


@dataclass(frozen=True)
class Request:
    """What `python -m module *arguments` would be started with."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str

    def send(self, connection: socket.socket, streams: Sequence[int]) -> None:
        """Writes the request; `streams` are stdin, stdout and stderr of the new process. Raises OSError."""
        text = json.dumps(asdict(self)).encode()
        socket.send_fds(connection, [LENGTH.pack(len(text))], list(streams))
        connection.sendall(text)

    @classmethod
    def receive(cls, connection: socket.socket) -> "tuple[Request, list[int]]":
        """Raises OSError or ValueError where the other side sends something else."""
        head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, STREAMS)
        try:
            if len(head) != LENGTH.size or len(streams) != STREAMS:
                raise ValueError("not a request")
            (length,) = LENGTH.unpack(head)
            if length > LIMIT_BYTES:
                raise ValueError("too long a request")
            text = b""
            while len(text) < length:
                part = connection.recv(length - len(text))
                if not part:
                    raise ValueError("half a request")
                text += part
            return cls(**json.loads(text)), streams
        except BaseException:
            for stream in streams:
                os.close(stream)
            raise


class ForkServer:
    """Accepts requests and reports how the forks end, in one thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._forks: dict[int, socket.socket] = {}
        self._wake, wake = socket.socketpair()
        for end in (self._wake, wake, listener):
            end.setblocking(False)
        self._waker = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wakeup is enough
        leave_signals_to_parent()

    def run(self) -> tuple[Request, list[int]] | None:
        """Serves until stdin ends and then returns None. Returns a request in each fork, which carries it out."""
        with selectors.DefaultSelector() as selector:
            for source in (self._listener, self._wake, sys.stdin):
                selector.register(source, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if sys.stdin in ready and not os.read(0, 4096):
                    _let_signals_be()  # forks that end now would wake a socket that is closed
                    return None
                if self._wake in ready:
                    self._wake.recv(4096)
                    self._report()
                if self._listener in ready and (request := self._accept()):
                    return request

    def _accept(self) -> tuple[Request, list[int]] | None:
        connection, _ = self._listener.accept()
        connection.settimeout(10.0)
        try:
            request, streams = Request.receive(connection)
        except (OSError, ValueError):
            connection.close()
            return None
        pid = _fork_with_session()
        if pid == 0:
            self._forget(connection)
            return request, streams
        for stream in streams:
            os.close(stream)
        self._forks[pid] = connection
        _say(connection, pid)
        return None

    def _report(self) -> None:
        while self._forks:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self._forks.pop(pid, None)
            if connection is not None:
                _say(connection, os.waitstatus_to_exitcode(status))
                connection.close()

    def _forget(self, connection: socket.socket) -> None:
        """In a fork: none of the server's connections and signal handlers are its own."""
        _let_signals_be()
        take_signals_again()
        for one in (self._listener, self._wake, self._waker, connection, *self._forks.values()):
            one.close()


def _fork_with_session() -> int:
    """As `os.fork`; returns once the fork has a session of its own: who learns its id may kill its group."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
    os.close(writing)
    if pid:
        os.read(reading, 1)  # the end of what the fork never writes
    os.close(reading)
    return pid


def _let_signals_be() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def become(request: Request, streams: Sequence[int]) -> NoReturn:
    """Makes this fork the process that `request` asks for, runs its module as `python -m` does, and ends.

    It ends without taking every object apart, as children of `multiprocessing` do: of what the server has imported that
    takes 0.25 CPU seconds. Threads are waited for, what was registered with `atexit` runs, and its output is flushed.
    """
    setproctitle(" ".join([sys.executable, "-m", request.module, *request.arguments]))  # before environ moves
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  for as long as the process runs
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.folder)
    sys.argv = [request.module, *request.arguments]
    code = _run(request.module)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # the module may have closed or replaced it
            output.flush()
    os._exit(code)


def _run(module: str) -> int:
    """The exit status of the module. A KeyboardInterrupt passes through: Python then ends by the signal."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        sys.stderr.write(f"{end.code}\n")
        return 1
    except Exception:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _say(connection: socket.socket, number: int) -> None:
    try:
        connection.sendall(f"{number}\n".encode())
    except OSError:  # whoever asked has ended; the fork's stdin has ended with it
        return


def _preload(modules: Sequence[str]) -> None:
    with without(UNWANTED):
        for module in modules:
            try:
                importlib.import_module(module)
            except ImportError:  # then the fork that needs it says what is missing
                traceback.print_exc()
    gc.freeze()  # a collection in a fork would write to, and so copy, every page of the objects of before


def main() -> None:
    """Requests wait in the listening socket while it imports."""
    address, number, *modules = sys.argv[1:]
    with socket.socket(fileno=int(number)) as listener:
        server = ForkServer(listener)  # before the imports, which take seconds: a signal may come meanwhile
        _preload(modules)
        request = server.run()
    if request is not None:
        become(*request)
    with contextlib.suppress(OSError):  # who started us removes its folder, unless it was killed
        Path(address).unlink()
        Path(address).parent.rmdir()


if __name__ == "__main__":
    main()
