"""The port of the bell. A message carries an id and nothing else: lost, doubled or late ones are harmless."""

from collections.abc import Awaitable, Callable
from typing import Protocol

Handler = Callable[[], Awaitable[None]]


class Queue(Protocol):
    """Wakes workers up; the database says what there is to do."""

    async def put(self, id: str) -> None:
        """Rings for the job `id`. Called after the commit that made the work."""
        ...

    async def serve(self, handler: Handler) -> None:
        """Calls `handler` at every ring, and at least at every sweep, until cancelled. Calls never overlap."""
        ...
