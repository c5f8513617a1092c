"""The bell without a server: a ring wakes the processes of this machine, through pipes in the data folder.

Without that folder, as with a database elsewhere, every worker checks the table when it has changed.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress

from service.queue.base import Handler
from service.queue.pipes import Pipes

LastCommit = Callable[[], int | None]  # `Database.last_commit`


class EmbeddedQueue:
    """A `Queue` for one machine; a ring in the same process has effect at once.

    With `pipes`, so have the rings of others, and the handler is called at a ring, and after `sweep_seconds` in any
    case: leases expire without a ring. Without them it is called at the next check; with `last_commit`, only if anybody
    has committed since, and after `sweep_seconds`.
    """

    server = None

    def __init__(
        self,
        poll_seconds: float,
        sweep_seconds: float = 0.0,
        last_commit: LastCommit | None = None,
        pipes: Pipes | None = None,
    ) -> None:
        self._poll_seconds = poll_seconds
        self._sweep_seconds = sweep_seconds
        self._last_commit = last_commit or _unknown
        self._pipes = pipes
        self._rung = asyncio.Event()

    async def put(self, id: str) -> None:
        self._rung.set()
        if self._pipes is not None:
            self._pipes.ring()

    async def serve(self, handler: Handler) -> None:
        with nullcontext(False) if self._pipes is None else self._pipes.listening(self._rung.set) as hears:
            while True:
                self._rung.clear()
                seen = None if hears else self._last_commit()
                await handler()
                await self._wait(seen, self._sweep_seconds if hears else self._poll_seconds)

    async def check(self) -> None:
        return

    async def close(self) -> None:
        return

    async def _wait(self, seen: int | None, pause_seconds: float) -> None:
        """Returns at a ring, at the first check that finds another commit than `seen`, and after a sweep.

        A check is due after each pause; where nothing is `seen`, it returns.
        """
        due_at = time.monotonic() + self._sweep_seconds
        while not self._rung.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):  # wait_for of Python 3.11 can lose a cancellation
                    await self._rung.wait()
            if seen is None or self._last_commit() != seen or time.monotonic() >= due_at:
                return


class EmbeddedTurns:
    """`Turns` of a single process."""

    async def take(self, chore: str, seconds: float) -> bool:
        return True


def _unknown() -> None:
    return None
