"""How much a key may ask of the engines: requests and tokens per minute, each a bucket that empties all the time.

A leaky bucket as a meter (ITU-T I.371): a request may come in while there is room for it, and a limit of N per minute
makes room at N per minute. OpenAI's limits are of this kind: its "Limit 10000, Used 8339, Requested 7835. Please try
again in 37.044s" is (8339 + 7835 - 10000) / 10000 of a minute. It takes two numbers per key and kind, whatever the
limit, and charges what an answer cost beyond its estimate afterwards, for which a window of entries has no place.

Stands before `forward` (admit) and behind it (settle). Per process, and in memory, where nothing can be away;
`shared_limits` is the same for several processes. Must not know HTTP.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from service.domain.errors import RateLimited
from service.gateway.forward import EngineRequest, Usage
from service.settings.settings import Settings

Kind = Literal["requests", "tokens"]

MINUTE_SECONDS = 60.0
DEBT_LIMITS = 2.0  # an answer far beyond its estimate is charged up to this many limits: nobody waits above 2 minutes
CHARACTERS_PER_TOKEN = 4
_PER_MINUTE: dict[Kind, str] = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}


@dataclass(frozen=True)
class Standing:
    """What is left of a limit, and in how many seconds all of it will be there again."""

    limit: int
    remaining: int
    reset_seconds: float


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
        """The level, as it was found elsewhere a moment ago."""
        self._level, self._leaked_at = level, self._clock()

    def add(self, cost: float) -> None:
        """Charges `cost`, of which some may be given back (below 0)."""
        self._level = min(max(0.0, self.used() + cost), DEBT_LIMITS * self.limit)

    def seconds_until_room(self, cost: int) -> float:
        """To the millisecond; 0 where `cost` fits in now."""
        return max(0.0, round((self.used() + cost - self.limit) * MINUTE_SECONDS / self.limit, 3))

    def standing(self) -> Standing:
        used = self.used()
        return Standing(self.limit, max(0, math.floor(self.limit - used)), used * MINUTE_SECONDS / self.limit)


class RateLimits:
    """The buckets of every key that has asked for something; one per process."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        limits: dict[Kind, int] = {"requests": settings.requests_per_minute, "tokens": settings.tokens_per_minute}
        self._limits = {kind: limit for kind, limit in limits.items() if limit > 0}
        self._clock = clock
        self._buckets: dict[str, dict[Kind, Bucket]] = {}

    async def admit(self, request: EngineRequest, organization: str) -> None:
        """Charges the key with one request and the tokens it reserves. Raises RateLimited, and charges nothing then."""
        self._check(request, organization)
        self._charge(request)

    def settle(self, usage: Usage) -> None:
        """Puts what an answer really cost in place of what was reserved for it; keeps that where nobody knows."""
        bucket = self._of(usage.key_id).get("tokens")
        if bucket is not None:
            bucket.add(beyond_reserved(usage))

    def standing(self, key_id: str) -> Mapping[Kind, Standing]:
        """What the key has left; empty without limits."""
        return {kind: bucket.standing() for kind, bucket in self._of(key_id).items()}

    def _check(self, request: EngineRequest, organization: str) -> None:
        for kind, bucket in self._of(request.key_id).items():
            what = f"{request.model} in organization {organization} on {_PER_MINUTE[kind]}"
            _check(kind, bucket, costs_of(request)[kind], what)

    def _charge(self, request: EngineRequest) -> None:
        for kind, bucket in self._of(request.key_id).items():
            bucket.add(costs_of(request)[kind])

    def _of(self, key_id: str) -> dict[Kind, Bucket]:
        if key_id not in self._buckets:
            self._buckets[key_id] = {kind: Bucket(limit, self._clock) for kind, limit in self._limits.items()}
        return self._buckets[key_id]


def costs_of(request: EngineRequest) -> dict[Kind, int]:
    """What a request is charged with when it comes in."""
    return {"requests": 1, "tokens": request.reserved_tokens}


def beyond_reserved(usage: Usage) -> int:
    """The tokens that an answer cost more than was reserved for it (below 0: less); 0 where nobody knows."""
    if usage.prompt_tokens is None:
        return 0
    return usage.prompt_tokens + (usage.completion_tokens or 0) - usage.reserved_tokens


def estimated_tokens(fields: Mapping[str, Any]) -> int:
    """A prompt's tokens before anybody has counted them: one per four characters; token arrays as they are."""
    prompt = fields.get("prompt", fields.get("messages"))
    return max(1, math.ceil(_characters(prompt) / CHARACTERS_PER_TOKEN))


def duration(seconds: float) -> str:
    """`seconds` as OpenAI writes them: 6ms, 1s, 37.044s, 6m0s; rounded up to milliseconds."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


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


def _characters(prompt: Any) -> int:
    """Of a text, of token ids (four each), of messages and their parts."""
    match prompt:
        case str():
            return len(prompt)
        case int():
            return CHARACTERS_PER_TOKEN
        case list():
            return sum(_characters(item) for item in prompt)
        case dict():
            return sum(_characters(value) for value in prompt.values())
        case _:
            return 0
