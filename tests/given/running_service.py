"""`luthierd up` for tests: started for real on free loopback ports, killed in parts, ended whatever happens."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from service.recipes.base import Base
from tests.given.forked_process import Started, start_process

ROOT = Path(__file__).parents[2]
PORTS = range(15_000, 32_000)  # below those that the kernel gives to outgoing connections
START_SECONDS = 120.0
STOP_SECONDS = 60.0


@dataclass
class RunningService:
    """One installation in one folder; may be started and stopped several times."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: Started | None = None

    def __post_init__(self) -> None:
        self.port, self.engine_port = free_ports(2)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return (self.folder / "api-key").read_text(encoding="utf-8").strip()

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def client(self, key: str | None = None) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=5)

    def start(self) -> None:
        """Returns when API and engine answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as stream:
            self.process = start_process(["-m", "service", "up"], self.variables(), stream)
        for port in (self.port, self.engine_port):
            wait_for(lambda port=port: answers(f"http://127.0.0.1:{port}/health"), START_SECONDS, f"port {port}")  # type: ignore[misc]

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)

    def run(self, *arguments: str) -> str:
        """`luthierd` with these arguments; returns what it printed."""
        command = [sys.executable, "-m", "service", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.variables(), check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def processes(self, *words: str) -> list[int]:
        """Descendants of this service whose command line holds all the words, parents first."""
        assert self.process is not None
        return [pid for pid in descendants(self.process.pid) if all(word in command_line(pid) for word in words)]

    def end(self) -> None:
        """Kills whatever is left, by pid."""
        if self.process is None:
            return
        left = [self.process.pid, *descendants(self.process.pid)]
        for pid in left:
            kill(pid)
        self.process.wait(10)

    def variables(self) -> dict[str, str]:
        """The environment of its processes."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
        return others | {
            "LUTHIER_DATA_DIR": str(self.folder),
            "LUTHIER_TRAINER_THREADS": "1",  # the bases are too small to be shared by two
            "LUTHIER_ENGINE_THREADS": "1",
            "LUTHIER_PORT": str(self.port),
            "LUTHIER_ENGINE_PORT": str(self.engine_port),
            "LUTHIER_ENGINE_URLS": f"http://127.0.0.1:{self.engine_port}",
            **self.environment,
        }


@contextmanager
def running(folder: Path, base: Base | None = None, **settings: object) -> Iterator[RunningService]:
    """A started service, on `base` alone when given; `settings` become LUTHIER_*."""
    environment = {f"LUTHIER_{name.upper()}": str(value) for name, value in settings.items()}
    if base is not None:
        environment["LUTHIER_CATALOGUE"] = str(write_catalogue(folder.parent / f"{folder.name}-bases.toml", base))
    service = RunningService(folder, environment)
    try:
        service.start()
        yield service
    except BaseException:
        print(service.log[-8000:])
        raise
    finally:
        service.end()


def write_catalogue(path: Path, *bases: Base) -> Path:
    """A catalogue with these bases."""
    path.write_text("\n".join(map(_entry, bases)), encoding="utf-8")
    return path


def _entry(base: Base) -> str:
    rates = ", ".join(f"{name} = {rate}" for name, rate in base.learning_rate.items())
    serving = base.serving
    return (
        f'[[base]]\nid = "{base.id}"\naliases = {list(base.aliases)}\n'
        f'kind = "{base.kind}"\nsource = "{base.source}"\ndtype = "{base.dtype}"\n'
        f"context_tokens = {base.context_tokens}\nlearning_rate = {{ {rates} }}\n"
        f'serving = {{ engine = "{serving.engine}", tunings = {sorted(serving.tunings)}, '
        f"engines = {list(serving.engines)}, max_rank = {serving.max_rank} }}\n"
    )


def wait_for_status(
    client: OpenAI, job_id: str, *statuses: str, seconds: float = 120.0, pause: float = 0.2
) -> FineTuningJob:
    """The job once it has one of the statuses; fails early when it ended otherwise. Asks again after each `pause`."""
    deadline = time.monotonic() + seconds
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in statuses:
            return job
        assert job.status not in ("succeeded", "failed", "cancelled"), (job.status, job.error)
        assert time.monotonic() < deadline, f"still {job.status} after {seconds} s"
        time.sleep(pause)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Of loopback. No connection is given such a port by itself, so that a server may come back to its own."""
    candidates = iter(random.SystemRandom().sample(PORTS, 100 + count))
    return list(itertools.islice((port for port in candidates if _is_free(port)), count))


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections that ended do not count
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def descendants(pid: int) -> list[int]:
    """Every living process below `pid`, parents first."""
    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
