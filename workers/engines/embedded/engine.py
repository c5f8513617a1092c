"""The embedded engine: one base in memory, its adapters by name, its lanes of rows.

Puts the parts together. Has no HTTP: `app` serves it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from service.domain.model import HeadConfig
from service.recipes.base import Base
from service.recipes.tasks import TASKS, Task, encoder_alone, wrong_endpoint
from service.storage import ObjectStore
from workers.engines.embedded.batcher import Batcher
from workers.engines.embedded.parse import RequestParser
from workers.engines.embedded.reading import Reader
from workers.engines.embedded.resident import Residents
from workers.engines.embedded.vocabulary import Vocabulary
from workers.files.disk_cache import DiskCache, trim
from workers.model.adapters import Adapter, Adapters
from workers.model.head import Head
from workers.model.load import LoadedBase

MIB = 1024 * 1024


@dataclass(frozen=True)
class EngineLimits:
    """What an engine may hold at a time."""

    batch_rows: int = 16
    resident_adapters: int = 32
    adapter_bytes: int = 4 * 1024 * MIB  # of all resident adapters' parameters
    cache_bytes: int = 512 * MIB


class Engine:
    """Serves `base` and every adapter of it in `storage`. No other process uses `cache_dir`."""

    def __init__(
        self, base: Base, loaded: LoadedBase, storage: ObjectStore, cache_dir: Path, limits: EngineLimits | None = None
    ) -> None:
        limits = limits or EngineLimits()
        trim(cache_dir, limits.cache_bytes)
        adapters = Adapters(loaded.model)
        self.base = base
        self.batcher = Batcher(loaded, limits.batch_rows)
        self.residents = Residents(
            base,
            loaded,
            DiskCache(storage, cache_dir, limits.cache_bytes),
            adapters,
            self.batcher,
            limits.resident_adapters,
            limits.adapter_bytes,
        )
        self.reader = Reader(loaded, self.batcher)
        self.parser = RequestParser(base, loaded, Vocabulary(loaded))
        plain = HeadConfig(problem_type="embedding", labels=[], pooling="mean")
        # What an encoder returns by itself.
        self._plain = Head(plain, loaded.model.config.get_text_config().hidden_size, loaded.device)
        self._run: asyncio.Task[None] | None = None

    def check_generates(self, name: str, adapter: Adapter | None) -> None:
        """Raises InvalidRequest for a model that writes no text."""
        if adapter is not None and adapter.head is not None:
            raise wrong_endpoint(name, _task(adapter))
        if adapter is None and self.base.kind == "encoder":
            raise encoder_alone(name)

    def check_classifies(self, name: str, adapter: Adapter | None) -> tuple[Adapter, Head]:
        """The adapter of a model that classifies or scores, and its head. Raises InvalidRequest for any other."""
        if adapter is None and self.base.kind == "encoder":
            raise encoder_alone(name)
        if adapter is None or adapter.head is None or _task(adapter) is not TASKS["classify"]:
            raise wrong_endpoint(name, _task(adapter))
        return adapter, adapter.head

    def check_embeds(self, name: str, adapter: Adapter | None) -> Head:
        """The head of a model that returns vectors; an encoder does by itself. Raises InvalidRequest for others."""
        if adapter is None and self.base.kind == "encoder":
            return self._plain
        if adapter is None or adapter.head is None or _task(adapter) is not TASKS["embed"]:
            raise wrong_endpoint(name, _task(adapter))
        return adapter.head

    @property
    def alive(self) -> bool:
        """Whether it can generate: only inside `running`, and while the batcher has not failed."""
        return self._run is not None and not self._run.done()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Generates until the block ends. Only once per engine."""
        self._run = asyncio.create_task(self.batcher.run())
        try:
            yield
        finally:
            await self.residents.close()
            self._run.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._run

    @asynccontextmanager
    async def model(self, name: str) -> AsyncIterator[tuple[str, Adapter | None]]:
        """The model that a client calls `name`: its own name and its adapter, in memory until the block ends.

        Raises ModelNotFound or Unavailable.
        """
        if name == self.base.id or name in self.base.aliases:
            yield self.base.id, None
        else:
            async with self.residents.hold(name) as adapter:
                yield name, adapter


def _task(adapter: Adapter | None) -> Task:
    """What the model is for, as its head says."""
    if adapter is None or adapter.head is None:
        return TASKS["generate"]
    return TASKS["embed" if adapter.head.config.problem_type == "embedding" else "classify"]
