"""The service as processes on loopback ports of their own: SQLite, local storage, a small base with OpenAI's names.

What the base says does not matter here, so it is one of random weights that computes fast.
"""

import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.given import seeds
from tests.given.forked_process import ending_with_us
from tests.given.running_service import write_catalogue
from tests.given.tiny_models import make_tiny_base

ALIASES = ("gpt-4o-mini", "gpt-6-astra", "gpt-3.5-turbo-instruct")
CONTEXT_TOKENS = 128  # the suite sets no limit, and a small model may never end
READY_SECONDS = 120.0


@contextmanager
def served(folder: Path, *workers: str) -> Iterator[str]:
    """The API and some workers (`engine`, `train`), as processes of their own; returns the API's base URL."""
    port, engine_port = free_port(), free_port()
    named = {"id": seeds.BASE, "aliases": ALIASES, "context_tokens": CONTEXT_TOKENS}
    base = make_tiny_base(folder / "base").model_copy(update=named)
    catalogue = write_catalogue(folder / "bases.toml", base)
    environment = {
        **os.environ,
        "LUTHIER_DATA_DIR": str(folder / "data"),
        "LUTHIER_CATALOGUE": str(catalogue),
        "LUTHIER_LOG_LEVEL": "warning",
        "LUTHIER_WANDB_ENTITIES": "entity",  # the suite's own
        "LUTHIER_TRAINER_THREADS": "1",
        "LUTHIER_ENGINE_THREADS": "1",
        "LUTHIER_PORT": str(port),
        "LUTHIER_ENGINE_PORT": str(engine_port),
        "LUTHIER_ENGINE_URLS": f"http://127.0.0.1:{engine_port}",
    }
    with ExitStack() as running:
        running.enter_context(ending_with_us(["-m", "tests.conformance.server"], environment))
        _wait_until_healthy(f"http://127.0.0.1:{port}")  # it migrates
        for worker in workers:
            running.enter_context(ending_with_us(["-m", "workers", worker, "--die-with-parent"], environment))
        if "engine" in workers:
            _wait_until_healthy(f"http://127.0.0.1:{engine_port}")
        yield f"http://127.0.0.1:{port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
