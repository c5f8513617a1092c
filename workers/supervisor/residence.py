"""Which base a worker's trainer holds: one at a time, changed when no job is seated.

The rule of a worker that holds several bases, of which only one can be in memory: it takes the oldest waiting job of
any of its bases, or none. While jobs are seated and the oldest waiting one is of another base, it takes nothing more,
not even younger jobs of the base in memory: its slots run empty, the former trainer's process ends, the next one's
starts. So nobody is overtaken for ever; the price is slots that stay free while the last jobs before a change end.
Where that is too dear, let workers hold different bases (`LUTHIER_BASES`).

Used by `workers.supervisor.supervisor`, which knows who is seated. Must not know jobs.
"""

import asyncio
from collections.abc import Mapping

import structlog

from workers.trainer.parent.handle import TrainerHandle

log = structlog.get_logger()


class Residence:
    """The trainers of the bases that a worker holds, of which at most one has a process."""

    def __init__(self, trainers: Mapping[str, TrainerHandle]) -> None:
        self._trainers = trainers
        self._moving = asyncio.Lock()

    @property
    def bases(self) -> list[str]:
        return list(self._trainers)

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

    async def warm(self) -> None:
        """Loads the base at once where there is only one; of several, the first job decides."""
        if len(self._trainers) == 1:
            for trainer in self._trainers.values():
                await trainer.start()

    async def beat(self) -> None:
        """Lets a running trainer live on for another lease."""
        await asyncio.gather(*(trainer.beat() for trainer in self._trainers.values()))

    async def stop(self) -> None:
        """Ends whatever runs, for good."""
        await asyncio.gather(*(trainer.stop() for trainer in self._trainers.values()))
