"""Which base a worker's trainer holds, one at a time, and which bases it can load at all.

The rule of a worker that holds several bases, of which only one can be in memory: it takes the next waiting job of any
of its bases, or none. While jobs are seated and the next one is of another base, it takes nothing more, not even jobs
of the base in memory: its slots run empty, the former trainer's process ends, the next one's starts. So nobody is
overtaken for ever; the price is slots that stay free while the last jobs before a change end. Where that is too dear,
let workers hold different bases (`LUTHIER_BASES`).

A base whose tokenizer or trainer does not load is not ready: nothing that needs it is claimed, and it is tried again
after a while, later each time. Used by `workers.supervisor.supervisor`, which knows who is seated. Must not know jobs.
"""

import asyncio
import time
from collections.abc import Mapping

import structlog

from service.domain.work import LOADING
from service.recipes.catalogue import Catalogue
from workers.jobs.loading import BaseNotLoaded, Tokenizers
from workers.trainer.parent.handle import TrainerHandle

log = structlog.get_logger()
RETRY_SECONDS = 1.0
RETRY_LIMIT_SECONDS = 60.0
LOOK_SECONDS = 0.5


class Residence:
    """The trainers of the bases that a worker holds, of which at most one has a process."""

    def __init__(self, trainers: Mapping[str, TrainerHandle], catalogue: Catalogue, tokenizers: Tokenizers) -> None:
        self._trainers = trainers
        self._catalogue = catalogue
        self._tokenizers = tokenizers
        self._moving = asyncio.Lock()
        self._usable: set[str] = set()
        self._states = dict.fromkeys(trainers, LOADING)
        self._failures = dict.fromkeys(trainers, 0)
        self._retry_at = dict.fromkeys(trainers, 0.0)

    @property
    def bases(self) -> list[str]:
        return list(self._trainers)

    @property
    def usable(self) -> list[str]:
        """The bases whose work may be claimed: those that are not known to be impossible to load."""
        return [base for base in self._trainers if base in self._usable]

    @property
    def states(self) -> dict[str, str]:
        """Of each base why it is not ready, "" when it is."""
        return dict(self._states)

    def __getitem__(self, base: str) -> TrainerHandle:
        """That base's trainer as it is: with a process or without one."""
        return self._trainers[base]

    async def move_in(self, base: str) -> TrainerHandle:
        """That base's trainer, once the others' processes have ended. Only while no job is seated in those."""
        async with self._moving:
            for other, trainer in self._trainers.items():
                if other != base and trainer.pid is not None:
                    log.info("trainer.moving", out=other, into=base)
                    await trainer.rest()
        return self._trainers[base]

    async def keep_ready(self) -> None:
        """Loads what can be loaded before a job needs it, and tries again what could not be; until cancelled.

        Tokenizers of all bases. A trainer only where there is one base; of several, the first job decides, and its
        trainer's failure is told by `failed`.
        """
        while True:
            for base in self._trainers:
                if base not in self._usable and time.monotonic() >= self._retry_at[base]:
                    await self._load(base)
            await asyncio.sleep(LOOK_SECONDS)

    def failed(self, error: BaseNotLoaded) -> None:
        """Takes the base out of use for a while, longer each time; of several that say so at once, one counts."""
        base = error.base_id
        if base not in self._usable and time.monotonic() < self._retry_at[base]:
            return
        self._usable.discard(base)
        seconds = min(RETRY_LIMIT_SECONDS, RETRY_SECONDS * 2 ** min(self._failures[base], 30))
        self._failures[base] += 1
        self._retry_at[base] = time.monotonic() + seconds
        self._states[base] = error.reason
        log.error("worker.base_not_loaded", base=base, reason=error.reason, retry_seconds=seconds)

    async def beat(self) -> None:
        """Lets a running trainer live on for another lease."""
        await asyncio.gather(*(trainer.beat() for trainer in self._trainers.values()))
        for base in self.usable:
            if self._trainers[base].loaded:
                self._loaded(base)

    async def stop(self) -> None:
        """Ends whatever runs, for good."""
        await asyncio.gather(*(trainer.stop() for trainer in self._trainers.values()))

    async def _load(self, base: str) -> None:
        """Whether the base loads, as far as can be said without a job. At a first try jobs are claimed meanwhile."""
        first = self._failures[base] == 0
        try:
            await asyncio.to_thread(self._tokenizers.of, self._catalogue.bases[base])
            if first or len(self._trainers) > 1:
                self._usable.add(base)
            if len(self._trainers) > 1:
                if first:
                    self._loaded(base)
                return
            if not await self._trainers[base].start():
                raise BaseNotLoaded(base, "its trainer ended before the base was loaded")
        except BaseNotLoaded as error:
            self.failed(error)
        else:
            self._usable.add(base)
            self._loaded(base)

    def _loaded(self, base: str) -> None:
        if self._states[base]:
            log.info("worker.base_ready", base=base)
        self._states[base], self._failures[base] = "", 0
