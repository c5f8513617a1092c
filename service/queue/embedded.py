"""The bell without a server: every worker checks the table when it has changed, so nothing has to be sent."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from service.queue.base import Handler

LastCommit = Callable[[], int | None]  # `Database.last_commit`


class EmbeddedQueue:
    """A `Queue` for one machine; a ring in the same process has effect at once, others at the next check.

    With `last_commit`, a check looks whether anybody has committed, which costs next to nothing, and the handler is
    called only then, and after `sweep_seconds` in any case: leases expire without a commit.
    """

    server = None

    def __init__(self, poll_seconds: float, sweep_seconds: float = 0.0, last_commit: LastCommit | None = None) -> None:
        self._poll_seconds = poll_seconds
        self._sweep_seconds = sweep_seconds
        self._last_commit = last_commit or _unknown
        self._rung = asyncio.Event()

    async def put(self, id: str) -> None:
        self._rung.set()

    async def serve(self, handler: Handler) -> None:
        while True:
            self._rung.clear()
            seen = self._last_commit()
            await handler()
            await self._wait(seen)

    async def check(self) -> None:
        return

    async def close(self) -> None:
        return

    async def _wait(self, seen: int | None) -> None:
        """Returns at a ring, at the first check that finds another commit than `seen`, and after a sweep."""
        due_at = time.monotonic() + self._sweep_seconds
        while not self._rung.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):  # wait_for of Python 3.11 can lose a cancellation
                    await self._rung.wait()
            if seen is None or self._last_commit() != seen or time.monotonic() >= due_at:
                return


class EmbeddedTurns:
    """`Turns` of a single process."""

    async def take(self, chore: str, seconds: float) -> bool:
        return True


def _unknown() -> None:
    return None
