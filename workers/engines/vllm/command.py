"""The command line and the environment of `vllm serve`: every flag that the gateway and the plugin rely on.

Pure: settings and a catalogue entry in, words out. `workers.engines.vllm.serve` runs them; must not import vLLM.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from service.recipes.base import Base
from service.settings.settings import Settings

LIFELINE = "LUTHIER_VLLM_LIFELINE"  # the file whose lock the keeper holds; tells the plugin that it is ours
ADAPTERS = "adapters"  # the cache, in the settings' `vllm_dir`
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes
LOGPROBS = 20  # OpenAI's limit of `top_logprobs`


def serve_command(settings: Settings, base: Base, on_cpu: bool, extra: Sequence[str] = ()) -> list[str]:
    """The words of `vllm serve`. Flags of the operator come last, and win."""
    serving = base.serving
    words = [
        str(settings.vllm_python.absolute()), "-P", "-m", "vllm.entrypoints.cli.main", "serve", base.source,
        "--served-model-name", base.id,
        "--host", settings.engine_host,
        "--port", str(settings.engine_port),
        "--dtype", base.dtype,
        "--max-model-len", str(base.context_tokens),
        "--generation-config", "vllm",  # OpenAI's defaults, not those of the base's folder
        "--max-logprobs", str(LOGPROBS),
        "--enable-lora",
        "--max-loras", str(settings.vllm_max_loras),
        "--max-cpu-loras", str(max(settings.vllm_max_loras, settings.engine_resident_adapters)),
        "--max-lora-rank", str(next(rank for rank in RANKS if rank >= serving.max_rank)),
        "--middleware", "workers.engines.vllm.plugin.Door",  # by the plugin's name: without the plugin no vLLM starts
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
    ]  # fmt: skip
    if base.revision:
        words += ["--revision", base.revision, "--tokenizer-revision", base.revision]
    if serving.tool_call_parser:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", serving.tool_call_parser]
    if on_cpu:
        words += ["--enforce-eager"]  # nothing is gained by compiling there, and the start takes longer
    return [*words, *shlex.split(settings.vllm_arguments), *extra]


def serve_environment(settings: Settings, base: Base, on_cpu: bool, lifeline: Path) -> dict[str, str]:
    """What is added to our own environment."""
    added = {
        LIFELINE: str(lifeline.absolute()),
        "LUTHIER_DATA_DIR": str(settings.data_dir.absolute()),
        "LUTHIER_CATALOGUE": str(settings.catalogue.absolute()),
        "LUTHIER_ENGINE_BASE": base.id,
        "VLLM_PLUGINS": "luthier",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # else vLLM asks no resolver
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if Path(base.source).is_dir():
        added |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if on_cpu:
        added |= {
            "VLLM_CPU_KVCACHE_SPACE": str(settings.vllm_kv_cache_gib),
            "VLLM_WORKER_MULTIPROC_METHOD": "fork",
        }
    return added
