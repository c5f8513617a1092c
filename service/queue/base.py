"""The port of the bell, and of taking turns. A message carries an id and nothing else: lost ones are harmless."""

from collections.abc import Awaitable, Callable
from typing import Protocol

Handler = Callable[[], Awaitable[None]]


class Queue(Protocol):
    """Wakes workers up; the database says what there is to do."""

    @property
    def server(self) -> str | None:
        """What carries the messages, by its product's name; None where nothing has to."""
        ...

    async def put(self, id: str) -> None:
        """Rings for the job `id`. Called after the commit that made the work."""
        ...

    async def serve(self, handler: Handler) -> None:
        """Calls `handler` at every ring, and at least at every sweep, until cancelled. Calls never overlap."""
        ...

    async def check(self) -> None:
        """Raises Unavailable where the server cannot be reached: then workers hear nothing until they look."""
        ...

    async def close(self) -> None:
        """Ends the connection, which others may share. The last call."""
        ...


class Turns(Protocol):
    """Who of several equal processes does what is due; that two do it now and then must be harmless."""

    async def take(self, chore: str, seconds: float) -> bool:
        """Whether it is this process' turn: nobody has taken the chore in the last `seconds`. Never raises."""
        ...
