"""Luthier's plugin in vLLM: loads adapters by name from our storage, and bounds what a connection may hold.

vLLM calls `register` (entry point `vllm.general_plugins`) in each of its processes, and `StorageResolver` for every
name that it has not loaded. vLLM's own `--api-key` is the installation's: who has it may call every artifact.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import vllm
from fastapi import HTTPException
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry
from vllm.platforms import current_platform

from service.domain.model import MANIFEST, is_model_name
from service.domain.storage_keys import artifact_prefix
from service.installation.storage import open_storage
from service.processes.http_server import ConnectionLimits, bound_every_server
from service.processes.parent import die_with_holder
from service.recipes.base import Base
from service.recipes.catalogue import read_catalogue
from service.settings import logs
from service.settings.settings import Settings
from service.storage import ObjectMissing, StorageError
from workers.engines.vllm.fit import Unservable, check_folder, check_manifest
from workers.engines.vllm.fixes import fix_rows, refuse_unknown_tokens, rows_need_fix
from workers.engines.vllm.middleware import DRAIN_SIGNAL, DrainingMiddleware, Refused
from workers.engines.vllm.serve import ADAPTERS, LIFELINE
from workers.files.artifacts import ArtifactCorrupt
from workers.files.disk_cache import ArtifactTooLarge, CacheFull, DiskCache

__all__ = ["DrainingMiddleware", "StorageResolver", "register"]

log = structlog.get_logger()
UNUSABLE = "adapter_unusable"  # the embedded engine's code, too: waiting does not help


def register() -> None:
    """Called by vLLM at the start of each process. Does nothing unless `luthier-worker vllm` started this vLLM."""
    if LIFELINE not in os.environ:
        log.warning("vllm.plugin_idle", reason="not started by luthier-worker vllm")
        return
    die_with_holder(Path(os.environ[LIFELINE]))
    settings = Settings()
    logs.configure(settings.log_level)
    bound_every_server(ConnectionLimits(write_seconds=settings.write_seconds))
    if rows_need_fix(vllm.__version__, current_platform.is_cpu()):
        fix_rows()
    refuse_unknown_tokens()
    base = read_catalogue(settings.catalogue).of_engine(settings.engine_base)
    cache = DiskCache(open_storage(settings), settings.vllm_dir / ADAPTERS, settings.engine_cache_bytes)
    LoRAResolverRegistry.register_resolver("luthier", StorageResolver(base, cache))


class StorageResolver(LoRAResolver):  # type: ignore[misc]  # vLLM is in another environment than mypy
    """Adapters of one base. vLLM calls it for a name until the adapter is loaded; after a refusal it calls again."""

    def __init__(self, base: Base, cache: DiskCache) -> None:
        self._base = base
        self._cache = cache

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """The adapter in our cache; None when there is no such model. Raises Refused, HTTPException(503)."""
        if not is_model_name(lora_name):
            return None
        try:
            with _refusals(lora_name):
                manifest = await self._cache.manifest(lora_name)
                check_manifest(self._base, manifest)
                folder = await self._cache.keep(manifest)
                await asyncio.to_thread(check_folder, self._base, folder)
        except ObjectMissing:
            return None
        log.info("adapter.resolved", model=lora_name)
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))  # vLLM counts ids itself


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turns what prevents serving an adapter into a 503. Only a missing manifest means that there is no such model."""
    try:
        yield
    except CacheFull:
        log.warning("adapter.no_room", model=name, remedy="vLLM restarts; raise LUTHIER_ENGINE_CACHE_BYTES")
        os.kill(os.getpid(), DRAIN_SIGNAL)
        raise HTTPException(503, "The engine makes room for more models. Please try again later.") from None
    except (ArtifactCorrupt, Unservable) as error:
        log.error("adapter.unusable", model=name, reason=str(error))
        raise Refused(503, UNUSABLE, f"The model '{name}' cannot be loaded: {error}") from error
    except ArtifactTooLarge as error:  # the operator can raise the limit, so an announcement keeps waiting
        log.error("adapter.too_large", model=name, reason=str(error))
        raise HTTPException(503, f"The model '{name}' cannot be loaded.") from error
    except (StorageError, TimeoutError) as error:
        if isinstance(error, ObjectMissing) and str(error) == artifact_prefix(name) + MANIFEST:
            raise
        log.warning("adapter.unreachable", model=name, reason=str(error) or type(error).__name__)
        raise HTTPException(503, f"The model '{name}' cannot be fetched from storage just now.") from error
