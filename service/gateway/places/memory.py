"""The places of one API process, in its memory."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.gateway.forward import EngineRequest
from service.gateway.places.base import Capacity, Release, too_late, too_many


@dataclass(eq=False)
class _Waiting:
    weight: int
    admitted: asyncio.Future[None]


class _Room:
    """The places of one base."""

    def __init__(self, places: int, share: int) -> None:
        self._free = self._places = places
        self._share = share
        self._held: Counter[str] = Counter()  # by project
        self._waiting: dict[str, deque[_Waiting]] = {}  # the project that was admitted longest ago first

    async def enter(self, project: str, weight: int) -> None:
        waiting = _Waiting(weight, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(project, deque()).append(waiting)
        self._admit()
        try:
            await waiting.admitted
        except BaseException:
            if waiting.admitted.done() and not waiting.admitted.cancelled():
                self.leave(project, weight)  # admitted while it was being cancelled
            else:
                self._forget(project, waiting)
                self._admit()  # it may have been what the others waited for
            raise

    def leave(self, project: str, weight: int) -> None:
        self._free += weight
        self._held[project] -= weight
        self._held += Counter()  # drops zeros
        self._admit()

    def _admit(self) -> None:
        while (project := self._next()) is not None:
            waiting = self._waiting[project].popleft()
            queue = self._waiting.pop(project)
            if queue:
                self._waiting[project] = queue  # the last among those that hold as few
            self._free -= waiting.weight
            self._held[project] += waiting.weight
            waiting.admitted.set_result(None)

    def _next(self) -> str | None:
        """The project that holds the fewest places among those that may hold more; None while it does not fit.

        Nobody overtakes it then, or a request of many places would wait without end.
        """
        able = [project for project, queue in self._waiting.items() if self._within_share(project, queue[0].weight)]
        if not able:
            return None
        project = min(able, key=lambda one: self._held[one])
        fits = self._waiting[project][0].weight <= self._free or self._free == self._places
        return project if fits else None

    def _within_share(self, project: str, weight: int) -> bool:
        return not self._held[project] or self._held[project] + weight <= self._share

    def _forget(self, project: str, waiting: _Waiting) -> None:
        self._waiting[project].remove(waiting)
        if not self._waiting[project]:
            del self._waiting[project]


class MemoryPlaces:
    """`Places` for a single API process."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._rooms: dict[str, _Room] = {}
        self._requests = RequestCounts(capacity.requests_per_project)

    async def take(self, request: EngineRequest) -> Release:
        with self._requests.counted(request.project_id) as counted:
            release = await self.enter(request)
            return counted.until(release)

    async def enter(self, request: EngineRequest) -> Release:
        """As `take`, without counting the project's requests."""
        base, project = request.base, request.project_id
        room = self._rooms.setdefault(base, _Room(self._capacity.of(base), self._capacity.share(base)))
        weight = self._capacity.weight(request)
        try:
            async with asyncio.timeout(self._capacity.wait_seconds):
                await room.enter(project, weight)
        except TimeoutError:
            raise too_late(self._capacity.wait_seconds) from None
        return lambda: room.leave(project, weight)


class RequestCounts:
    """How many requests each project has in this process, waiting ones included."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()

    @contextmanager
    def counted(self, project: str) -> Iterator["_Counted"]:
        """Counts one request until the block ends, or until what `until` returns is called. Raises RateLimited."""
        if self._counts[project] >= self._limit:
            raise too_many(self._limit)
        self._counts[project] += 1
        one = _Counted(self._counts, project)
        try:
            yield one
        finally:
            if not one.kept:
                one.end()


class _Counted:
    def __init__(self, counts: Counter[str], project: str) -> None:
        self._counts = counts
        self._project = project
        self.kept = False
        self._ended = False

    def until(self, release: Release) -> Release:
        """Keeps the count until the returned function is called, which calls `release`, too."""
        self.kept = True

        def end() -> None:
            if not self._ended:
                release()
                self.end()

        return end

    def end(self) -> None:
        self._ended = True
        self._counts[self._project] -= 1
        if not self._counts[self._project]:
            del self._counts[self._project]
