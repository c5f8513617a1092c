"""Which base a worker's trainers hold, one at a time, and which bases it can load at all.

A worker with several bases can have one of them in memory. It claims the next waiting job of any of its bases, in
order. While jobs are seated and the next one needs another base, it claims nothing, not even jobs of the base in
memory: the seated jobs end, then the trainers' processes end and one of the next base starts. So no job is overtaken
without end; the cost is slots that stay free before a change. Where that is too high, give workers different bases
(`LUTHIER_BASES`).

A base whose tokenizer or trainer cannot be loaded is not ready: no work that needs it is claimed, and loading is
retried with growing pauses. Has no jobs: `workers.supervisor.supervisor` knows which are seated.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog

from service.domain.memory import DeviceMemory
from service.domain.work import LOADING
from service.recipes.catalogue import Catalogue
from workers.jobs.loading import BaseNotLoaded, Tokenizers
from workers.supervisor.trainers import Trainers

log = structlog.get_logger()
RETRY_SECONDS = 1.0
RETRY_LIMIT_SECONDS = 60.0


class Residence:
    """The trainers of the bases that a worker holds; those of at most one base have processes."""

    def __init__(
        self,
        trainers: Mapping[str, Trainers],
        catalogue: Catalogue,
        tokenizers: Tokenizers,
        ring: Callable[[str], Awaitable[None]],
    ) -> None:
        """`ring` is called with a base whose work may now be claimed."""
        self._ring = ring
        self._trainers = trainers
        self._catalogue = catalogue
        self._tokenizers = tokenizers
        self._moving = asyncio.Lock()
        self._failed = asyncio.Event()  # since `keep_ready` looked
        self._usable: set[str] = set()
        self._states = dict.fromkeys(trainers, LOADING)
        self._failures = dict.fromkeys(trainers, 0)
        self._retry_at = dict.fromkeys(trainers, 0.0)

    @property
    def bases(self) -> list[str]:
        return list(self._trainers)

    @property
    def usable(self) -> list[str]:
        """The bases whose work may be claimed: all but those that could not be loaded."""
        return [base for base in self._trainers if base in self._usable]

    @property
    def states(self) -> dict[str, str]:
        """For each base why it is not ready; "" when it is."""
        return dict(self._states)

    @property
    def memory(self) -> dict[str, DeviceMemory]:
        """Of each base that a trainer has loaded at least once, what it had then."""
        found = {base: trainers.memory for base, trainers in self._trainers.items()}
        return {base: memory for base, memory in found.items() if memory is not None}

    def __getitem__(self, base: str) -> Trainers:
        """That base's trainers, whether or not they have processes."""
        return self._trainers[base]

    async def move_in(self, base: str) -> Trainers:
        """That base's trainers, once the others' processes have ended. Only while no job is seated in those."""
        async with self._moving:
            for other, trainers in self._trainers.items():
                if other != base and trainers.running:
                    log.info("trainer.moving", out=other, into=base)
                    await trainers.rest()
        return self._trainers[base]

    async def keep_ready(self) -> None:
        """Loads what can be loaded before a job needs it, and retries what failed; until cancelled.

        That is the tokenizers of all bases, and the trainer if there is only one base. With several bases the first job
        decides which trainer starts; if that fails, `failed` is called.
        """
        while True:
            self._failed.clear()
            for base in self._trainers:
                if base not in self._usable and time.monotonic() >= self._retry_at[base]:
                    await self._load(base)
            due = [self._retry_at[base] for base in self._trainers if base not in self._usable]
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(due) - time.monotonic()) if due else None):
                    await self._failed.wait()

    def failed(self, error: BaseNotLoaded) -> None:
        """Makes the base unusable for a while, longer each time. Reports of the same failure count once."""
        base = error.base_id
        if base not in self._usable and time.monotonic() < self._retry_at[base]:
            return
        self._usable.discard(base)
        seconds = min(RETRY_LIMIT_SECONDS, RETRY_SECONDS * 2 ** min(self._failures[base], 30))
        self._failures[base] += 1
        self._retry_at[base] = time.monotonic() + seconds
        self._states[base] = error.reason
        self._failed.set()
        log.error("worker.base_not_loaded", base=base, reason=error.reason, retry_seconds=seconds)

    async def beat(self) -> None:
        """Extends the life of running trainers by another lease."""
        await asyncio.gather(*(trainers.beat() for trainers in self._trainers.values()))
        for base in self.usable:
            if self._trainers[base].loaded:
                self._loaded(base)

    async def stop(self) -> None:
        """Ends all trainers permanently."""
        await asyncio.gather(*(trainers.stop() for trainers in self._trainers.values()))

    async def _load(self, base: str) -> None:
        """Loads what can be loaded without a job. During the first try, jobs of the base may already be claimed."""
        first = self._failures[base] == 0
        try:
            await asyncio.to_thread(self._tokenizers.of, self._catalogue.bases[base])
            if first or len(self._trainers) > 1:
                await self._use(base)
            if len(self._trainers) > 1:
                if first:
                    self._loaded(base)
                return
            if not await self._trainers[base].start():
                raise BaseNotLoaded(base, "its trainer ended before the base was loaded")
        except BaseNotLoaded as error:
            self.failed(error)
        else:
            await self._use(base)
            self._loaded(base)

    async def _use(self, base: str) -> None:
        if base not in self._usable:
            self._usable.add(base)
            await self._ring(base)

    def _loaded(self, base: str) -> None:
        if self._states[base]:
            log.info("worker.base_ready", base=base)
        self._states[base], self._failures[base] = "", 0
