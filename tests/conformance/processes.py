"""The service as processes on loopback ports of their own: SQLite, local storage, a catalogue with OpenAI's names."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.conformance.suite import REPOSITORY

CATALOGUE = REPOSITORY / "service" / "bases.toml"
ALIASES = '["gpt-4o-mini", "gpt-6-astra", "gpt-3.5-turbo-instruct"]'
SHORT = "context_tokens = 128"  # the suite sets no limit, and a small model may never end
READY_SECONDS = 120.0
STOP_SECONDS = 20.0


@contextmanager
def served(folder: Path, *workers: str) -> Iterator[str]:
    """The API and some workers (`engine`, `train`), as processes of their own; answers the API's base URL."""
    port, engine_port = free_port(), free_port()
    catalogue = folder / "bases.toml"
    catalogue.write_text(_for_tests(CATALOGUE.read_text(encoding="utf-8")), encoding="utf-8")
    environment = {
        **os.environ,
        "LUTHIER_DATA_DIR": str(folder / "data"),
        "LUTHIER_CATALOGUE": str(catalogue),
        "LUTHIER_LOG_LEVEL": "warning",
        "LUTHIER_PORT": str(port),
        "LUTHIER_ENGINE_PORT": str(engine_port),
        "LUTHIER_ENGINE_URLS": f"http://127.0.0.1:{engine_port}",
    }
    with ExitStack() as running:
        running.enter_context(_process(environment, "tests.conformance.server"))
        _wait_until_healthy(f"http://127.0.0.1:{port}")  # it migrates
        for worker in workers:
            running.enter_context(_process(environment, "workers", worker, "--die-with-parent"))
        if "engine" in workers:
            _wait_until_healthy(f"http://127.0.0.1:{engine_port}")
        yield f"http://127.0.0.1:{port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _for_tests(catalogue: str) -> str:
    """The product's catalogue with the names that the suite says, absolute folders, and room for short answers only."""
    absolute = str((CATALOGUE.parent / "../workers/bases").resolve())
    changes = {"aliases = []": f"aliases = {ALIASES}", "../workers/bases": absolute, "context_tokens = 1024": SHORT}
    for old, new in changes.items():
        catalogue = catalogue.replace(old, new)
    return catalogue


@contextmanager
def _process(environment: dict[str, str], *module: str) -> Iterator[None]:
    """`python -m ...`, ended (at the latest) when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module], env=environment, stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _wait_until_healthy(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"{url} was not ready within {READY_SECONDS:.0f} seconds")
