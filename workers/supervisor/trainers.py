"""The trainers of one base in a worker: one process, or several where each would leave processors unused.

One trainer of a small base keeps one core busy however many jobs it holds; the threads of a large one wait for each
other. Jobs are spread over as many trainers as keep the CPUs busy; a job stays with its trainer until it leaves, and
computes the same bits in any. Those after the first start when there is a job for them and end when they have had
none for a while. Does not know which base is in memory: `workers.supervisor.residence` does.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog

from service.domain.memory import DeviceMemory
from service.recipes.catalogue import Catalogue
from service.settings.settings import Settings
from workers.jobs.loading import BaseNotLoaded
from workers.trainer.launch import trainer_command
from workers.trainer.parent.handle import TrainerHandle

log = structlog.get_logger()
IDLE_BEATS = 3  # without a job, before a trainer after the first ends


def create_trainers(settings: Settings, catalogue: Catalogue) -> dict[str, "Trainers"]:
    """Those of each base that this worker holds, by the base's id; none is started before its first job or `start`.

    Raises CatalogueError when the settings name a base that the catalogue does not have.
    """
    return {
        base.id: Trainers(partial(TrainerHandle, trainer_command(settings, base)), settings.trainers)
        for base in catalogue.named(settings.held_bases)
    }


class Trainers:
    """At first one trainer; `most` at a time, where 0 is what the first one reports once it is loaded."""

    def __init__(self, make: Callable[[], TrainerHandle], most: int = 0) -> None:
        self._make = make
        self._most = most
        self._first = make()
        self._handles = [self._first]
        self._jobs: Counter[TrainerHandle] = Counter()
        self._idle_beats: Counter[TrainerHandle] = Counter()
        self._resting: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether one has a process."""
        return bool(self.pids)

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run."""
        return [handle.pid for handle in self._handles if handle.pid is not None]

    @property
    def loaded(self) -> bool:
        """Whether one has loaded the base."""
        return any(handle.loaded for handle in self._handles)

    @property
    def memory(self) -> DeviceMemory | None:
        """What the device of the first one had once the base was loaded; None before."""
        return self._first.ready.memory if self._first.ready is not None else None

    @asynccontextmanager
    async def place(self) -> AsyncIterator[TrainerHandle]:
        """A trainer for one job, that with the fewest. Where all have some and more are of use, a new one."""
        if self._jobs.total() and self._first.ready is None and self._most != 1:
            await self._first.start()  # then it is known how many are of use
        trainer = self._next()
        self._jobs[trainer] += 1
        try:
            yield trainer
        except BaseNotLoaded:
            self._drop(trainer)
            raise
        finally:
            self._jobs[trainer] -= 1

    async def start(self) -> bool:
        """Starts the first before a job needs it; returns whether it has loaded the base."""
        return await self._first.start()

    async def leave(self, job_id: str) -> None:
        """Makes the job leave its slot at the next whole step, with a snapshot."""
        for handle in self._handles:
            await handle.leave(job_id, snapshot=True)

    async def pause(self, job_id: str) -> None:
        """Makes the job pause after its next step."""
        for handle in self._handles:
            await handle.pause(job_id)

    async def beat(self) -> None:
        """Extends the life of those that run by another lease; ends those that have been without a job for long."""
        await asyncio.gather(*(handle.beat() for handle in self._handles))
        for handle in self._handles[1:]:
            self._idle_beats[handle] = 0 if self._jobs[handle] else self._idle_beats[handle] + 1
            if self._idle_beats[handle] == IDLE_BEATS and handle.pid is not None:
                task = asyncio.create_task(handle.rest())  # a job that is placed there meanwhile starts it again
                self._resting.add(task)
                task.add_done_callback(self._resting.discard)

    async def rest(self) -> None:
        """Ends all until a job is placed again. Only while none is."""
        await asyncio.gather(*(handle.rest() for handle in self._handles))

    async def stop(self) -> None:
        """Ends all permanently."""
        await asyncio.gather(*(handle.stop() for handle in self._handles), *self._resting)

    def _next(self) -> TrainerHandle:
        least = min(self._handles, key=lambda handle: self._jobs[handle])  # of several the oldest
        ready = self._first.ready
        most = self._most or (ready.trainers if ready is not None else 1)
        if self._jobs[least] and len(self._handles) < most:
            least = self._make()
            self._handles.append(least)
        return least

    def _drop(self, trainer: TrainerHandle) -> None:
        """One after the first that could not load the base, for want of memory perhaps: there will be fewer."""
        if trainer is not self._first and not trainer.loaded and trainer in self._handles:
            self._handles.remove(trainer)
            self._most = len(self._handles)
            log.warning("worker.fewer_trainers", trainers=self._most)
