"""Which adapters vLLM's requests use, from its own statistics: this is the order in which the cache is trimmed.

Loaded by vLLM (entry point `vllm.stat_logger_plugins`) into its API server.
"""

import os
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from service.settings.settings import Settings
from workers.engines.vllm.serve import ADAPTERS, LIFELINE
from workers.files.disk_cache import Touches


class AdapterUsage(StatLoggerBase):  # type: ignore[misc]  # vLLM is in another environment than mypy
    """Marks every adapter that a request runs with or waits for as used."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._touches = Touches(Settings().vllm_dir / ADAPTERS) if LIFELINE in os.environ else None

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        if self._touches is not None and scheduler_stats is not None:
            for name in {*scheduler_stats.running_lora_adapters, *scheduler_stats.waiting_lora_adapters}:
                self._touches.touch(name)

    def log_engine_initialized(self) -> None:
        """Required by vLLM; logs nothing."""
