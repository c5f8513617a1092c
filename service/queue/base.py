"""The port of the bell, and of taking turns. A message carries only an id; lost messages are harmless."""

from collections.abc import Awaitable, Callable
from typing import Protocol

Handler = Callable[[], Awaitable[None]]


class Queue(Protocol):
    """Wakes workers up; what there is to do is in the database."""

    @property
    def server(self) -> str | None:
        """The product that carries the messages; None where there is none."""
        ...

    async def put(self, id: str) -> None:
        """Rings for the job `id`. Called after the commit that made the work."""
        ...

    async def serve(self, handler: Handler) -> None:
        """Calls `handler` at every ring, and at least at every sweep, until cancelled. Calls never overlap."""
        ...

    async def check(self) -> None:
        """Raises Unavailable where the server cannot be reached: then workers only check at every sweep."""
        ...

    async def close(self) -> None:
        """Ends the connection, which others may share. The last call."""
        ...


class Turns(Protocol):
    """Decides which of several equal processes does a chore; it must be harmless if two do."""

    async def take(self, chore: str, seconds: float) -> bool:
        """Whether it is this process' turn: no process has taken the chore in the last `seconds`. Never raises."""
        ...
