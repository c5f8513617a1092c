"""Which adapters the engine holds in memory: fetched by name when a request asks, the least recently used one evicted.

There is no authorisation: whoever can reach the engine may call every artifact in storage. Has no HTTP.
Next in the journey: `workers.model.adapters` puts the weights into the model, `batcher` generates with them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from service.domain.errors import JobError, LuthierError, ModelNotFound, Unavailable
from service.domain.model import MANIFEST, Manifest, is_model_name
from service.domain.storage_keys import artifact_prefix
from service.recipes.base import Base
from service.storage import ObjectMissing, StorageError
from workers.engines.embedded.batcher import Batcher
from workers.files.artifacts import ArtifactCorrupt
from workers.files.disk_cache import DiskCache
from workers.model.adapters import Adapter, Adapters
from workers.model.load import WEIGHTS, LoadedBase
from workers.tunings import AdapterMismatch

log = structlog.get_logger()
NONSENSE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)  # of a wrong config
ROOM_SECONDS = 60.0  # how long a new adapter waits until one in use becomes idle


@dataclass(eq=False)
class _Resident:
    """An adapter that is in memory or being loaded. `users` counts the requests that use it or wait for it."""

    loading: asyncio.Task[Adapter]
    users: int = 0
    memory_bytes: int = 0  # once it is attached


class Residents:
    """At most `limit` adapters of one base and `limit_bytes` of their parameters; one that a running request uses is
    never evicted."""

    def __init__(
        self,
        base: Base,
        loaded: LoadedBase,
        cache: DiskCache,
        adapters: Adapters,
        batcher: Batcher,
        limit: int,
        limit_bytes: int,
    ) -> None:
        self._base = base
        self._hashes = loaded.hashes
        self._cache = cache
        self._adapters = adapters
        self._batcher = batcher
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._residents: OrderedDict[str, _Resident] = OrderedDict()  # the least recently asked for first
        self._attached = 0
        self._attached_bytes = 0
        self._idle = asyncio.Event()
        self.num_loads = 0
        self.num_evictions = 0

    @property
    def names(self) -> list[str]:
        """What is in memory now."""
        return [name for name, resident in self._residents.items() if resident.loading.done()]

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Adapter]:
        """The adapter of `name`, in memory until the block ends. Raises ModelNotFound or Unavailable.

        Many may ask for one name at once: it is loaded once, also when the first of them hangs up meanwhile.
        """
        resident = self._residents.get(name) or self._begin(name)
        self._residents.move_to_end(name)
        resident.users += 1
        try:
            yield await asyncio.shield(resident.loading)
        finally:
            resident.users -= 1
            self._idle.set()

    async def close(self) -> None:
        """Cancels the loading of adapters."""
        loading = [resident.loading for resident in self._residents.values()]
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)

    def _begin(self, name: str) -> _Resident:
        resident = _Resident(asyncio.create_task(self._load(name)))
        self._residents[name] = resident
        resident.loading.add_done_callback(lambda task: self._forget_failed(name, task))
        return resident

    def _forget_failed(self, name: str, task: asyncio.Task[Adapter]) -> None:
        if task.cancelled() or task.exception():
            del self._residents[name]

    async def _load(self, name: str) -> Adapter:
        if not is_model_name(name):
            raise ModelNotFound(name)
        try:
            async with self._cache.lend(name) as folder:
                manifest = await asyncio.to_thread(_read_manifest, folder)
                self._check(manifest)
                return replace(await self._attach(name, folder), template_date=manifest.template_date)
        except (StorageError, TimeoutError, ArtifactCorrupt, AdapterMismatch, JobError, *NONSENSE) as error:
            raise _refusal(name, error) from error

    def _check(self, manifest: Manifest) -> None:
        if manifest.base != self._base.id:
            log.warning("adapter.foreign", model=manifest.name, base=manifest.base)
            raise ModelNotFound(manifest.name)
        if any(manifest.base_hashes.get(name) != self._hashes.get(name) for name in WEIGHTS):
            raise AdapterMismatch("It was trained on other weights than those of the base that this engine has loaded.")

    async def _attach(self, name: str, folder: Path) -> Adapter:
        needed = await self._batcher.call(self._adapters.memory_bytes, folder)
        if needed > self._limit_bytes:
            raise AdapterMismatch(f"It takes {needed} bytes of memory; the engine has {self._limit_bytes} for all.")
        await self._make_room(needed)
        self._take(name, needed)
        try:
            adapter = await self._batcher.call(self._adapters.attach, folder)
        except BaseException:
            self._give_back(needed)
            raise
        self.num_loads += 1
        log.info("adapter.attached", model=name, attached=self._attached)
        return adapter

    def _take(self, name: str, needed: int) -> None:
        self._residents[name].memory_bytes = needed
        self._attached += 1
        self._attached_bytes += needed

    def _give_back(self, freed: int) -> None:
        self._attached -= 1
        self._attached_bytes -= freed

    async def _make_room(self, needed: int) -> None:
        """Evicts until one more of `needed` bytes fits. Raises Unavailable."""
        while self._attached >= self._limit or self._attached_bytes + needed > self._limit_bytes:
            victim = next((name for name, resident in self._residents.items() if _evictable(resident)), None)
            if victim is not None:
                await self._evict(victim)
                continue
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), ROOM_SECONDS)
            except TimeoutError:
                raise Unavailable("Every adapter in the engine's memory is in use, please try again later.") from None

    async def _evict(self, name: str) -> None:
        """Removed from the table first: a request that comes meanwhile loads it again."""
        resident = self._residents.pop(name)
        await self._batcher.call(self._adapters.detach, resident.loading.result())
        self._give_back(resident.memory_bytes)
        self.num_evictions += 1
        log.info("adapter.evicted", model=name, attached=self._attached)


def _evictable(resident: _Resident) -> bool:
    return resident.loading.done() and not resident.users


def _read_manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


def _refusal(name: str, error: Exception) -> LuthierError:
    """The error for the client: only a missing manifest means that there is no such model."""
    if isinstance(error, ObjectMissing) and str(error) == artifact_prefix(name) + MANIFEST:
        return ModelNotFound(name)
    if isinstance(error, (ArtifactCorrupt, AdapterMismatch, JobError, *NONSENSE)):
        reason = type(error).__name__ if isinstance(error, NONSENSE) else str(error)
        log.error("adapter.unusable", model=name, reason=reason)
        return Unavailable(f"The model '{name}' cannot be loaded.", param="model", code="adapter_unusable")
    log.warning("adapter.unreachable", model=name, reason=str(error) or type(error).__name__)
    return Unavailable(f"The model '{name}' cannot be fetched from storage just now.", param="model")
