"""The arithmetic of a limit: a leaky bucket as a meter (ITU-T I.371), which empties all the time.

A request may come in while there is room for it, and a limit of N per minute makes room at N per minute. OpenAI's
limits are of this kind: its "Limit 10000, Used 8339, Requested 7835. Please try again in 37.044s" is
(8339 + 7835 - 10000) / 10000 of a minute. It takes two numbers per key and kind, whatever the limit, and charges what
a response cost beyond its estimate afterwards, which a sliding window of entries could not do.

Used by both implementations of the port. Uses no store.
"""

import math
from collections.abc import Callable, Mapping

from service.domain.errors import RateLimited
from service.gateway.limits.base import Kind, Standing, duration

MINUTE_SECONDS = 60.0
DEBT_LIMITS = 2.0  # a response far beyond its estimate is charged up to this many limits: waits stay below 2 minutes
_PER_MINUTE: dict[Kind, str] = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}


class Bucket:
    """One meter of one key."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._level = 0.0
        self._leaked_at = clock()

    def used(self) -> float:
        """The level, now."""
        now = self._clock()
        leaked = (now - self._leaked_at) * self.limit / MINUTE_SECONDS
        self._level, self._leaked_at = max(0.0, self._level - leaked), now
        return self._level

    def set(self, level: float) -> None:
        """Takes over a level that was just read elsewhere."""
        self._level, self._leaked_at = level, self._clock()

    def add(self, cost: float) -> None:
        """Charges `cost`; below 0, it refunds."""
        self._level = min(max(0.0, self.used() + cost), DEBT_LIMITS * self.limit)

    def seconds_until_room(self, cost: int) -> float:
        """To the millisecond; 0 if `cost` fits now."""
        return max(0.0, round((self.used() + cost - self.limit) * MINUTE_SECONDS / self.limit, 3))

    def standing(self) -> Standing:
        used = self.used()
        return Standing(self.limit, max(0, math.floor(self.limit - used)), used * MINUTE_SECONDS / self.limit)


class KeyMeter:
    """The buckets of one key: one for each kind that has a limit."""

    def __init__(self, limits: Mapping[Kind, int], clock: Callable[[], float]) -> None:
        self._buckets = {kind: Bucket(limit, clock) for kind, limit in limits.items()}

    def check(self, costs: Mapping[Kind, int], model: str, organization: str) -> None:
        """Raises RateLimited, in OpenAI's words, unless there is room for the costs in every bucket."""
        for kind, bucket in self._buckets.items():
            _check(kind, bucket, costs[kind], f"{model} in organization {organization} on {_PER_MINUTE[kind]}")

    def charge(self, costs: Mapping[Kind, int]) -> None:
        """Adds the costs of those kinds that have a limit."""
        for kind, bucket in self._buckets.items():
            bucket.add(costs.get(kind, 0))

    def set(self, levels: Mapping[Kind, float]) -> None:
        """Takes over levels that were just read elsewhere."""
        for kind, level in levels.items():
            self._buckets[kind].set(level)

    def standing(self) -> dict[Kind, Standing]:
        return {kind: bucket.standing() for kind, bucket in self._buckets.items()}


def _check(kind: Kind, bucket: Bucket, cost: int, what: str) -> None:
    if cost > bucket.limit:
        raise RateLimited(
            f"Request too large for {what}: Limit {bucket.limit}, Requested {cost}. "
            "The input or output tokens must be reduced in order to run successfully.",
            kind=kind,
            may_retry=False,
        )
    wait_seconds = bucket.seconds_until_room(cost)
    if wait_seconds > 0:
        raise RateLimited(
            f"Rate limit reached for {what}: Limit {bucket.limit}, Used {math.ceil(bucket.used())}, Requested {cost}. "
            f"Please try again in {duration(wait_seconds)}. Every API key has its own limit.",
            kind=kind,
            retry_after_seconds=wait_seconds,
        )
