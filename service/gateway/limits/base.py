"""The port of rate limits: how much a key may use per minute, in requests and in tokens.

Called before `service.gateway.forward` (`admit`) and after it (`settle`). Does not use HTTP.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from service.gateway.forward import EngineRequest, RequestCost

Kind = Literal["requests", "tokens"]
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class PerMinute:
    """The limits of every key; 0 is no limit."""

    requests: int = 0
    tokens: int = 0

    def by_kind(self) -> dict[Kind, int]:
        """Those that are set."""
        limits: dict[Kind, int] = {"requests": self.requests, "tokens": self.tokens}
        return {kind: limit for kind, limit in limits.items() if limit > 0}


@dataclass(frozen=True)
class Standing:
    """What is left of a limit, and in how many seconds all of it will be available again."""

    limit: int
    remaining: int
    reset_seconds: float


class RateLimits(Protocol):
    """The limits of an installation's keys; one object per process."""

    async def admit(self, request: EngineRequest, organization: str) -> None:
        """Charges the key with one request and the tokens it reserves. Raises RateLimited, and charges nothing then."""
        ...

    def settle(self, usage: RequestCost) -> None:
        """Replaces the reservation by the real cost of a response; where that is unknown, adds what was relayed."""
        ...

    def standing(self, key_id: str) -> Mapping[Kind, Standing]:
        """What the key has left; empty without limits, and where it is unknown."""
        ...


def costs_of(request: EngineRequest) -> dict[Kind, int]:
    """What a request is charged when it arrives."""
    return {"requests": 1, "tokens": request.reserved_tokens}


def beyond_reserved(usage: RequestCost) -> int:
    """The tokens that a response cost beyond its reservation (below 0: less); where unknown, what was relayed of it."""
    if usage.prompt_tokens is None:
        return usage.relayed_tokens
    return usage.prompt_tokens + (usage.completion_tokens or 0) - usage.reserved_tokens


def estimated_tokens(fields: Mapping[str, Any]) -> int:
    """A prompt's tokens before they are counted: one per four characters; token arrays by their length."""
    prompt = fields.get("prompt", fields.get("input", fields.get("messages")))
    return max(1, math.ceil(_characters(prompt) / CHARACTERS_PER_TOKEN))


def duration(seconds: float) -> str:
    """`seconds` as OpenAI writes them: 6ms, 1s, 37.044s, 6m0s; rounded up to milliseconds."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


def _characters(prompt: Any) -> int:
    """Of a text, of token ids (four each), of messages and their parts."""
    match prompt:
        case str():
            return len(prompt)
        case int():
            return CHARACTERS_PER_TOKEN
        case [int(), *_]:
            return CHARACTERS_PER_TOKEN * len(prompt)
        case list():
            return sum(_characters(item) for item in prompt)
        case dict():
            return sum(_characters(value) for value in prompt.values())
        case _:
            return 0
