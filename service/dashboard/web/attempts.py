"""How often one address may send a wrong key in a minute. Of this process, and bounded itself.

Keys are too long to be guessed; the bound keeps attempts from costing much.
"""

import time
from collections import deque
from collections.abc import Callable

from service.domain.errors import RateLimited

WINDOW_SECONDS = 60.0
LIMIT = 10
ADDRESSES = 1024


class Attempts:
    """The failed sign-ins of the last minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[str, deque[float]] = {}

    def check(self, address: str) -> None:
        """Raises RateLimited for an address that has failed too often."""
        failed = self._failed.get(address, deque())
        while failed and failed[0] <= self._clock() - WINDOW_SECONDS:
            failed.popleft()
        if len(failed) >= LIMIT:
            wait_seconds = failed[0] + WINDOW_SECONDS - self._clock()
            raise RateLimited(
                f"Too many attempts to sign in. Try again in {max(1, round(wait_seconds))} seconds.",
                retry_after_seconds=wait_seconds,
            )

    def failed(self, address: str) -> None:
        """Counts a wrong key; where too many addresses have failed, the oldest is forgotten."""
        if address not in self._failed and len(self._failed) >= ADDRESSES:
            del self._failed[next(iter(self._failed))]
        self._failed.setdefault(address, deque()).append(self._clock())
