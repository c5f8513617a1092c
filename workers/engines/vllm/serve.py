"""`luthier-worker vllm`: runs one `vllm serve` in its own environment, and ends all of its processes with itself.

Trims the adapters' cache before each start, kills whatever is left of a vLLM that died, and drains before it stops. The
command line and the environment have every flag that the gateway and the plugin rely on. vLLM's processes import this
module too, for constants: nothing heavy, neither vLLM nor torch, is imported here.
"""

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import subprocess
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import structlog

from service.installation.engine_key import engine_key
from service.processes.child import KeptChild
from service.processes.parent import held
from service.recipes.base import Base
from service.recipes.catalogue import CatalogueError, read_catalogue
from service.settings.settings import Settings
from workers.engines.vllm.middleware import DRAIN_SIGNAL
from workers.files.disk_cache import trim

log = structlog.get_logger()
LIFELINE = "LUTHIER_VLLM_LIFELINE"  # a file that the parent process keeps locked; its presence activates the plugin
ADAPTERS = "adapters"  # the cache, in the settings' `vllm_dir`
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes
LOGPROBS = 20  # OpenAI's limit of `top_logprobs`
MIDDLEWARE = "workers.engines.vllm.plugin.DrainingMiddleware"  # named in the plugin: without it no vLLM starts
TOOLS_MIDDLEWARE = "workers.engines.vllm.tools.ToolsMiddleware"  # inside the other, which is added last
PROBE_SECONDS = 60.0
ENDS_SECONDS = 300.0
START_SHARE = 0.5  # of the cache's limit: what is kept at a start, so that the rest is free for new names
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
    """The version of vLLM in an environment that has our plugin, too. Raises ValueError."""
    try:
        return _printed([python, "-c", VERSIONS], os.environ, PROBE_SECONDS).split()[0]
    except OSError as error:
        raise ValueError(f"LUTHIER_VLLM_PYTHON: {python}: {error.strerror}; deploy/vllm makes one.") from error
    except _Failed as error:
        raise ValueError(f"LUTHIER_VLLM_PYTHON: vLLM or Luthier's plugin is missing there: {error}") from error


class _Failed(Exception):
    """A command of vLLM's environment failed; the text is the last line that it wrote about it."""


def _printed(command: Sequence[str | Path], environment: Mapping[str, str], seconds: float) -> str:
    """What a command printed. Raises OSError where it cannot be started, and _Failed."""
    try:
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise _Failed(f"not done after {seconds:.0f} seconds") from error
    if found.returncode:
        lines = found.stderr.strip().splitlines()
        raise _Failed(lines[-1] if lines else f"exit code {found.returncode}")
    return found.stdout


async def _serve(settings: Settings, base: Base, on_cpu: bool, extra: Sequence[str]) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with _owned(settings.vllm_dir) as lifeline:
        environment = os.environ | serve_environment(settings, base, on_cpu, lifeline)
        await asyncio.to_thread(_write_ends, settings, environment)
        vllm = KeptChild(
            "vllm",
            serve_command(settings, base, on_cpu, extra),
            environment,
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


def _ends(settings: Settings) -> Path:
    """The folder of a generation_config.json that names the tokens at which vLLM stops."""
    return (settings.vllm_dir / "generation").absolute()


def _write_ends(settings: Settings, environment: Mapping[str, str]) -> None:
    """In vLLM's environment, which has tokenizers. Raises ValueError for a base that cannot be read."""
    command = [str(settings.vllm_python.absolute()), "-P", "-m", "workers.engines.vllm", str(_ends(settings))]
    try:
        _printed(command, environment, ENDS_SECONDS)
    except _Failed as error:
        raise ValueError(f"The tokens that end the base's answers cannot be found: {error}") from error


def _trim(settings: Settings) -> None:
    """Makes room in the cache before vLLM starts: a running vLLM deletes nothing."""
    removed = trim(settings.vllm_dir / ADAPTERS, settings.engine_cache_bytes * START_SHARE)
    if removed:
        log.info("vllm.trimmed", removed=len(removed))


@contextmanager
def _owned(folder: Path) -> Iterator[Path]:
    """Locks the folder of one vLLM and yields the lifeline in it. Raises ValueError when another vLLM uses it."""
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


def serve_command(settings: Settings, base: Base, on_cpu: bool, extra: Sequence[str] = ()) -> list[str]:
    """The words of `vllm serve`. The operator's flags come last, so that they override ours."""
    serving = base.serving
    words = [
        str(settings.vllm_python.absolute()), "-P", "-m", "vllm.entrypoints.cli.main", "serve", base.source,
        "--served-model-name", base.id,
        "--host", settings.engine_host,
        "--port", str(settings.engine_port),
        "--dtype", base.dtype,
        "--max-model-len", str(base.context_tokens),
        "--generation-config", str(_ends(settings)),  # when to stop; else OpenAI's defaults, not the base's own
        "--max-logprobs", str(LOGPROBS),
        "--enable-lora",
        "--max-loras", str(settings.vllm_max_loras),
        "--max-cpu-loras", str(max(settings.vllm_max_loras, settings.engine_resident_adapters)),
        "--max-lora-rank", str(next(rank for rank in RANKS if rank >= serving.max_rank)),
        "--middleware", TOOLS_MIDDLEWARE,
        "--middleware", MIDDLEWARE,
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
    ]  # fmt: skip
    if base.revision:
        words += ["--revision", base.revision, "--tokenizer-revision", base.revision]
    if base.quantization:
        words += ["--quantization", "bitsandbytes"]  # vLLM packs the weights itself, in NF4
    if serving.tool_call_parser:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", serving.tool_call_parser]
    if on_cpu:
        words += ["--enforce-eager"]  # compiling takes long and gains nothing on a CPU
    return [*words, *shlex.split(settings.vllm_arguments), *extra]


def serve_environment(settings: Settings, base: Base, on_cpu: bool, lifeline: Path) -> dict[str, str]:
    """The variables that are added to our own environment."""
    added = {
        LIFELINE: str(lifeline.absolute()),
        "LUTHIER_DATA_DIR": str(settings.data_dir.absolute()),
        "LUTHIER_CATALOGUE": str(settings.catalogue.absolute()),
        "LUTHIER_ENGINE_BASE": base.id,
        "VLLM_PLUGINS": "luthier",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # else vLLM calls no resolver
        "VLLM_API_KEY": engine_key(settings),  # as --api-key, which every user of the machine could read
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if Path(base.source).is_dir():
        added |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if on_cpu:
        added |= {
            "VLLM_CPU_KVCACHE_SPACE": str(settings.vllm_kv_cache_gib),
            "VLLM_WORKER_MULTIPROC_METHOD": "fork",
            "TORCHDYNAMO_DISABLE": "1",  # nor what --enforce-eager leaves, such as the ranks of log-probabilities
        }
    return added
