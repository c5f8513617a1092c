"""The port of places: each sequence that an engine generates takes one, and projects take turns for them.

An engine works on its queue in order, so a key with 200 requests would let all others wait for the last of them. What
an engine cannot take at once therefore waits here, by project: the one that holds the fewest places is next, and one
project alone never holds all of them, so that another's short request finds room at once. Between `limits` (how much
per minute) and `forward`. Does not use HTTP.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from service.domain.errors import RateLimited
from service.gateway.forward import EngineRequest

Release = Callable[[], None]
RESERVED = 4  # one of so many places is never given to a project that holds all the others


@dataclass(frozen=True)
class Capacity:
    """`places` of each base (of all its engines), requests that one project may have at a time, longest wait."""

    places: Mapping[str, int]
    requests_per_project: int
    wait_seconds: float

    def of(self, base: str) -> int:
        return max(1, self.places.get(base, 1))

    def share(self, base: str) -> int:
        """The most that one project holds at a time."""
        return self.of(base) - self.of(base) // RESERVED

    def weight(self, request: EngineRequest) -> int:
        """The places that a request takes: one per sequence. One of more than a share takes all of it."""
        return min(request.sequences, self.share(request.base))


class Places(Protocol):
    """The places of an installation's engines; one object per process."""

    async def take(self, request: EngineRequest) -> Release:
        """Waits for its turn; call what it returns when the response has ended, once or more often.

        Raises RateLimited when the project has too many requests, or when its turn does not come in time.
        """
        ...


def too_many(limit: int) -> RateLimited:
    """The error for one request more than a project may have at a time."""
    return RateLimited(
        f"Your project has {limit} requests in progress, which is the limit. Please send the next one when some of "
        "them have ended.",
        retry_after_seconds=1.0,
    )


def too_late(wait_seconds: float) -> RateLimited:
    """The error for a request whose turn did not come."""
    return RateLimited(
        f"The engine had no room for this request within {wait_seconds:g} seconds. Please try again later.",
        retry_after_seconds=5.0,
    )
