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
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog

from service.recipes.base import Base
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.settings.settings import Settings
from workers.engines.vllm.cache import trim
from workers.engines.vllm.command import ADAPTERS, serve_command, serve_environment
from workers.engines.vllm.lifeline import held
from workers.engines.vllm.middleware import DRAIN_SIGNAL

log = structlog.get_logger()
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_SECONDS = 60.0  # one that lived longer is restarted at once
PROBE_SECONDS = 60.0
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
        keeper = _Keeper(settings, serve_command(settings, base, on_cpu, extra))
        keeping = asyncio.create_task(keeper.keep(serve_environment(settings, base, on_cpu, lifeline)))
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({keeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await keeper.stop()


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


class _Keeper:
    """One vLLM at a time, in a process group of its own."""

    def __init__(self, settings: Settings, command: list[str]) -> None:
        self._settings = settings
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self, environment: dict[str, str]) -> None:
        """Starts it, and again whenever it ends, waiting longer each time that it ends early."""
        failures = 0
        while True:
            trim(self._settings.vllm_dir / ADAPTERS, self._settings.engine_cache_bytes)
            started = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                env=os.environ | environment,
                start_new_session=True,
            )
            log.info("vllm.started", pid=self._process.pid)
            code = await self._process.wait()
            self._end_group()
            failures = 0 if code == 0 or time.monotonic() - started > STEADY_SECONDS else failures + 1
            pause = 0.0 if not failures else BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
            log.warning("vllm.ended", code=code, restart_in_seconds=pause)
            await asyncio.sleep(pause)

    async def stop(self) -> None:
        """Lets running requests finish, then ends the whole group."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(DRAIN_SIGNAL)
        try:
            async with asyncio.timeout(self._settings.vllm_drain_seconds):
                await process.wait()
        except TimeoutError:
            log.warning("vllm.killed", reason="requests did not finish in time")
        self._end_group()

    def _end_group(self) -> None:
        """vLLM's engine and workers outlive an API server that was killed."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
