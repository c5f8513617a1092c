"""Starts Luthier for an example, on embedded defaults and free ports, and stops it again.

Knows the command `luthierd up`, its environment, its key file and its log; the examples only speak HTTP to it.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 180.0
STOP_SECONDS = 60.0
LOG_TAIL_LINES = 30
SMALL = {"LUTHIER_TRAINER_THREADS": "1", "LUTHIER_ENGINE_THREADS": "1"}  # the toy base is too small to be shared by two


class ServiceFailed(Exception):
    """The service ended, or did not answer in time; the message says which."""


@dataclass(frozen=True)
class Service:
    """What a client of the running service needs."""

    base_url: str
    api_key: str


@contextmanager
def running_service(catalogue: Path | None = None, settings: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A service of its own for the `with` block: temporary data, two free ports, nothing left behind.

    Its bases are those of `catalogue`, or the bundled one. `settings` are environment variables; without them it
    computes on one thread.

    Raises ServiceFailed when it does not start. An error inside the block shows the end of the service's log.
    From here on SIGTERM is like Ctrl-C, so that what was started is stopped first.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _pass_proxies_by()
    with TemporaryDirectory(prefix="luthier-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        port, engine_port = _free_ports(2)
        log = folder / "luthier.log"
        process = _start(folder, port, engine_port, log, catalogue, SMALL if settings is None else settings)
        try:
            _wait_until_ready(process, [f"http://127.0.0.1:{number}/health" for number in (port, engine_port)])
            yield Service(f"http://127.0.0.1:{port}/v1", (folder / "api-key").read_text(encoding="utf-8").strip())
        except Exception:
            _show_tail(log)
            raise
        finally:
            _stop(process)


def _pass_proxies_by() -> None:
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))


def _start(
    folder: Path, port: int, engine_port: int, log: Path, catalogue: Path | None, more: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """A process group of its own: a Ctrl-C in the terminal reaches this program only, which then stops the service.

    The service ends with its stdin, so not even `kill -9` of this program leaves it behind.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("LUTHIER_")}
    settings = {
        "LUTHIER_DATA_DIR": str(folder),
        "LUTHIER_PORT": str(port),
        "LUTHIER_ENGINE_PORT": str(engine_port),
        "LUTHIER_ENGINE_URLS": f"http://127.0.0.1:{engine_port}",
        **more,
    }
    if catalogue is not None:
        settings["LUTHIER_CATALOGUE"] = str(catalogue)
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "service", "up", "--die-with-parent"],
            cwd=ROOT,
            env=others | settings,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_ready(process: subprocess.Popen[bytes], urls: Sequence[str]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    for url in urls:
        while not _answers(url):
            if process.poll() is not None:
                raise ServiceFailed(f"the service ended with code {process.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise ServiceFailed(f"{url} did not answer within {READY_SECONDS:.0f} s")
            time.sleep(0.1)


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:  # refused, reset, timed out, or an HTTP error
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks first; whoever is still there after that ends with its process group."""
    try:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"the service did not stop within {STOP_SECONDS:.0f} s and is killed", file=sys.stderr)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its children end when their stdin does
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _show_tail(log: Path) -> None:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    print("\nThe end of the service's log:", *lines, "", sep="\n  ", file=sys.stderr)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until all are known, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
