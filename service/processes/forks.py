"""Children forked from a fork server instead of started normally, from their parent's side.

`fork_server()` keeps a server for this process and all below it. While there is one, `start_fork` forks; without one,
or where it cannot be asked, it starts a new process: slower, otherwise the same.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from asyncio.subprocess import PIPE
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from service.processes.child import LINE_LIMIT_BYTES, ChildProcess, kill_group, start_child
from service.processes.fork_server import Request

log = structlog.get_logger()
ADDRESS = "_LUTHIER_FORK_SERVER"  # where the server of an ancestor listens; no setting, so it begins unlike one
# What API, workers, engines and trainers spend their start with: libraries, and none of our code (ADR 0019).
MODULES = (
    "torch", "torch.nn.attention.varlen", "transformers", "transformers.models.llama.modeling_llama", "peft",
    "fastapi", "uvicorn", "aiohttp", "typer", "pydantic_settings", "msgspec", "tenacity", "jinja2",
    "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql.asyncpg", "sqlalchemy.dialects.sqlite.aiosqlite",
    "asyncpg", "alembic.command", "arq", "redis.asyncio", "boto3",
    "detect_secrets", "phonenumbers", "stdnum", "rensa",
)  # fmt: skip
# Read when torch's libraries load, so they must be the same in the server and its forks.
LIBRARY_ENVIRONMENT = {
    # Threads of OpenMP that wait by spinning take CPU time from others and from each other: on a busy machine with
    # two cores a small model's step took 590 ms with the default and 15 ms with this.
    "OMP_WAIT_POLICY": "PASSIVE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with a fixed workspace
}
ASK_SECONDS = 120.0  # the server may still be importing
_NVIDIA = Path("/proc/driver/nvidia")
Connection = tuple[StreamReader, StreamWriter]


def forks_are_safe() -> bool:
    """Only on Linux, and not beside NVIDIA's driver: a library that asks it during import leaves forks without it."""
    return sys.platform == "linux" and not _NVIDIA.exists()


@contextmanager
def fork_server(modules: Sequence[str] = MODULES, folder: Path | None = None) -> Iterator[None]:
    """While the block lasts, `start_fork` forks, here and in every process below.

    Modules that are not installed are found in `folder`; without it, in the current one.

    Does nothing where an ancestor has a server already, or where `forks_are_safe` says no. The server begins to import
    at once; nothing waits for it but the first fork.
    """
    if ADDRESS in os.environ or not forks_are_safe():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="luthier-") as private:  # readable by this user only
        address = str(Path(private) / "forks")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(64)  # requests wait here while the server imports
            number = listener.fileno()
            server = subprocess.Popen(
                [sys.executable, "-m", "service.processes.fork_server", address, str(number), *modules],
                stdin=subprocess.PIPE,
                cwd=folder,
                env=LIBRARY_ENVIRONMENT | os.environ,
                pass_fds=[number],
                start_new_session=True,  # Ctrl-C is for us, also before the server ignores it
            )
        with server:
            os.environ[ADDRESS] = address
            try:
                yield
            finally:
                os.environ.pop(ADDRESS, None)
                server.kill()


async def start_fork(
    command: Sequence[str], environment: Mapping[str, str], *, stdin: int = PIPE, stdout: int | None = None
) -> ChildProcess:
    """As `start_child`, and by a fork where `command` is `[sys.executable, "-m", module, ...]` and there is a server.

    Raises OSError where the command cannot be run.
    """
    address = os.environ.get(ADDRESS)
    if address and stdin == PIPE and list(command[:2]) == [sys.executable, "-m"]:
        try:
            return await _fork(address, command[2], command[3:], environment, piped=stdout == PIPE)
        except (OSError, TimeoutError) as error:
            log.warning("fork_server.unavailable", error=str(error))
    return await start_child(command, environment, stdin=stdin, stdout=stdout)


class Fork:
    """A forked process, with what `asyncio.subprocess.Process` has of it. Its parent is the server."""

    def __init__(self, pid: int, server: Connection, stdin: Connection, stdout: StreamReader | None) -> None:
        """`server` says how the process ends. The connections are kept: without its writer, a reader's would close."""
        self.pid = pid
        self.returncode: int | None = None
        self.stdout = stdout
        self._connections = (server, stdin)
        self._ending = asyncio.create_task(self._end())

    @property
    def stdin(self) -> StreamWriter | None:
        return self._connections[1][1]

    async def wait(self) -> int:
        """Its exit status, negative for a signal, once it has ended."""
        return await asyncio.shield(self._ending)

    def send_signal(self, signal: int) -> None:
        """Nothing happens if it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has, and the server's line about it is on its way
                os.kill(self.pid, signal)

    async def _end(self) -> int:
        (status, server), (_, stdin) = self._connections
        try:
            line = await status.readline()
        except OSError:
            line = b""
        if not line:  # the server was killed, so nobody learns how the fork ends: make it end
            log.error("fork_server.ended", orphan=self.pid)
            kill_group(self)
        self.returncode = int(line) if line else -signal.SIGKILL
        server.close()
        stdin.close()
        return self.returncode


async def _fork(
    address: str, module: str, arguments: Sequence[str], environment: Mapping[str, str], *, piped: bool
) -> Fork:
    request = Request(module, list(arguments), dict(environment), str(Path.cwd()))
    with ExitStack() as stack:
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        stdin, their_stdin = map(stack.enter_context, socket.socketpair())
        output, their_output = map(stack.enter_context, _pipe())
        streams = [their_stdin.fileno(), their_output.fileno() if piped else 1, 2]
        asking = asyncio.create_task(asyncio.to_thread(_ask, connection, address, request, streams))
        try:
            await asyncio.shield(asking)
        finally:  # when cancelled: what the thread sends is open until it has sent it
            await asyncio.wait([asking])
        server = await asyncio.open_unix_connection(sock=connection.dup())
        try:
            async with asyncio.timeout(ASK_SECONDS):
                line = await server[0].readline()
            if not line:
                raise OSError("the fork server closed the connection")
            stdout = await _reader(output.fileno()) if piped else None
            return Fork(int(line), server, await asyncio.open_unix_connection(sock=stdin.dup()), stdout)
        except BaseException:  # the fork, if there is one, ends by the end of its stdin
            server[1].close()
            raise


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")


async def _reader(descriptor: int) -> StreamReader:
    """What comes through the pipe, of which a copy is kept until it ends."""
    reader = StreamReader(limit=LINE_LIMIT_BYTES)
    stream = os.fdopen(os.dup(descriptor), "rb")
    await asyncio.get_running_loop().connect_read_pipe(lambda: StreamReaderProtocol(reader), stream)
    return reader


def _ask(connection: socket.socket, address: str, request: Request, streams: Sequence[int]) -> None:
    connection.settimeout(ASK_SECONDS)
    connection.connect(address)
    request.send(connection, streams)
