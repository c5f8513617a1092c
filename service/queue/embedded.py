"""The bell without a server: every worker checks the table at a short interval, so nothing has to be sent."""

import asyncio
from contextlib import suppress

from service.queue.base import Handler


class EmbeddedQueue:
    """A `Queue` for one machine; a ring in the same process has effect at once, others at the next check."""

    server = None

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._rung = asyncio.Event()

    async def put(self, id: str) -> None:
        self._rung.set()

    async def serve(self, handler: Handler) -> None:
        while True:
            self._rung.clear()
            await handler()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):  # wait_for of Python 3.11 can lose a cancellation
                    await self._rung.wait()

    async def check(self) -> None:
        return

    async def close(self) -> None:
        return


class EmbeddedTurns:
    """`Turns` of a single process."""

    async def take(self, chore: str, seconds: float) -> bool:
        return True
