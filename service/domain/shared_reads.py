"""One read for everybody who wants the same at the same time.

What is kept in memory expires for all requests at once: each of a hundred that are in progress would then ask the
database for the same rows, and be late by the time that all of these take. Knows neither database nor HTTP.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SharedReads(Generic[Key, Value]):
    """The reads in progress. What one raises is raised for everybody who waits for it."""

    def __init__(self) -> None:
        self._reading: dict[Key, asyncio.Task[Value]] = {}

    async def read(self, key: Key, begin: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """The result of the read of `key` that is in progress, or of the one that `begin` makes.

        A caller that is cancelled leaves the read to the others.
        """
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(begin())
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: Key, task: asyncio.Task[Value]) -> None:
        del self._reading[key]
        if not task.cancelled():
            task.exception()  # seen, although everybody who waited may be gone
