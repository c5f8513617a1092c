"""One seated job's reports on their way from the reader of the child's pipe to whoever runs the job.

Bounded: a slow reader makes the child wait and loses nothing. Knows nothing of processes.
"""

import asyncio
from collections import deque

from workers.trainer.protocol import Crashed, Left, Report

LIMIT_REPORTS = 256


class Mailbox:
    """Written by one task, read by one other."""

    def __init__(self) -> None:
        self._reports: deque[Report | Crashed] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, report: Report) -> None:
        """Waits while the mailbox is full; throws the report away when it is closed."""
        while len(self._reports) >= LIMIT_REPORTS and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if not self._closed:
            self._add(report)

    def close(self, last: Crashed | Left | None = None) -> None:
        """No report comes any more, except `last`; what is in the mailbox can still be taken."""
        if last is not None and not self._closed:
            self._add(last)
        self._closed = True
        self._changed.set()

    async def take(self) -> Report | Crashed | None:
        """The next report; None when the mailbox is closed and empty."""
        while not self._reports and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if not self._reports:
            return None
        self._changed.set()
        return self._reports.popleft()

    def _add(self, report: Report | Crashed) -> None:
        self._reports.append(report)
        self._changed.set()
