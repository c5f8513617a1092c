"""`luthier-worker vllm`: keeps one vLLM running in its own environment, and lets nothing of it outlive us.

Trims the adapters' cache before each start, ends whatever is left of a vLLM that died, and drains before it stops.
Must not import vLLM or torch: `workers.engines.vllm.plugin` does, on the other side of the process.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import structlog

from service.processes.child import KeptChild
from service.processes.parent import held
from service.recipes.base import Base
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.settings.settings import Settings
from workers.engines.vllm.command import ADAPTERS, serve_command, serve_environment
from workers.engines.vllm.middleware import DRAIN_SIGNAL
from workers.files.disk_cache import trim

log = structlog.get_logger()
PROBE_SECONDS = 60.0
START_SHARE = 0.5  # of the cache: what may lie there at the start, so that the rest is free for new names
VERSIONS = "import importlib.metadata as m; print(m.version('vllm'), m.version('luthier'))"


def serve_vllm(settings: Settings, extra: Sequence[str] = ()) -> None:
    """Serves a base until SIGTERM or SIGINT. Raises CatalogueError or ValueError for settings that cannot work."""
    base = read_catalogue(settings.catalogue).of_engine(settings.engine_base)
    if base.serving.engine != "vllm":
        raise CatalogueError(f"The base '{base.id}' is not served by vLLM: give it serving.engine = \"vllm\".")
    version = _probe(settings.vllm_python)
    log.info("vllm.found", version=version, base=base.id)
    asyncio.run(_serve(settings, base, "+cpu" in version, extra))


def _probe(python: Path) -> str:
    """The version of vLLM there, beside our plugin. Raises ValueError."""
    try:
        found = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, timeout=PROBE_SECONDS)
    except OSError as error:
        raise ValueError(f"LUTHIER_VLLM_PYTHON: {python}: {error.strerror}; deploy/vllm makes one.") from error
    if found.returncode:
        reason = found.stderr.strip().splitlines()[-1]
        raise ValueError(f"LUTHIER_VLLM_PYTHON: vLLM or Luthier's plugin is not there: {reason}")
    return found.stdout.split()[0]


async def _serve(settings: Settings, base: Base, on_cpu: bool, extra: Sequence[str]) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with _owned(settings.vllm_dir) as lifeline:
        vllm = KeptChild(
            "vllm",
            serve_command(settings, base, on_cpu, extra),
            os.environ | serve_environment(settings, base, on_cpu, lifeline),
            stdin=DEVNULL,
            stop_signal=DRAIN_SIGNAL,  # running requests finish first
            stop_seconds=settings.vllm_drain_seconds,
            prepare=partial(_trim, settings),
        )
        keeping = asyncio.create_task(vllm.keep())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({keeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await vllm.stop()


def _trim(settings: Settings) -> None:
    """Makes the cache ready for a start of vLLM, which deletes nothing while it lives."""
    removed = trim(settings.vllm_dir / ADAPTERS, settings.engine_cache_bytes * START_SHARE)
    if removed:
        log.info("vllm.trimmed", removed=len(removed))


@contextmanager
def _owned(folder: Path) -> Iterator[Path]:
    """The folder of one vLLM, ours alone, and the lifeline in it. Raises ValueError when another one lives there."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder / "owner"))
        except BlockingIOError:
            raise ValueError(f"Another vLLM of this installation uses {folder}: set LUTHIER_ENGINE_PORT.") from None
        for left in folder.glob("lifeline-*"):
            left.unlink()
        lifeline = folder / f"lifeline-{secrets.token_hex(8)}"
        stack.enter_context(held(lifeline))
        yield lifeline
