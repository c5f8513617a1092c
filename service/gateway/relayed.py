"""About how many tokens a stream has relayed: what is charged and reported where it broke off before its usage came.

Engines send an event for a token, with the same fields around its text each time. So an event of about the length of
those before it is one token, and is not parsed. A longer one is: an engine whose client reads slowly puts many tokens
into one event.
"""

import math
from collections.abc import Iterator
from typing import Any

from service.gateway.events import parsed, split

BYTES_PER_TOKEN = 4  # of a text that was generated, on average
LONG_TOKEN_BYTES = 16  # of one token; few have more
TEXTS = ("text", "content", "reasoning", "reasoning_content", "refusal")


class RelayedTokens:
    """Add all events of one stream as they pass. `count` is nearly exact for one token per event, and with logprobs."""

    def __init__(self) -> None:
        self.count = 0
        self._one_token_bytes = 0  # a shorter event holds one token; 0 before any text has come, and with logprobs

    def add(self, whole: bytes) -> None:
        """`whole`: one or several whole events."""
        events = whole.count(b"\n\n")
        if len(whole) <= events * self._one_token_bytes:
            self.count += events
            return
        for event in split(whole):
            self._measure(event)

    def _measure(self, event: bytes) -> None:
        said = parsed(event)
        choices = said.get("choices") if isinstance(said, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                text_bytes = sum(len(text.encode(errors="replace")) for text in _texts(choice))
                scored = _scored(choice)
                self.count += _estimated(text_bytes) if scored is None else scored
                if text_bytes and scored is None:
                    one_token = len(event) - text_bytes + LONG_TOKEN_BYTES
                    self._one_token_bytes = min(one_token, self._one_token_bytes or one_token)


def _estimated(text_bytes: int) -> int:
    return min(text_bytes, 1) if text_bytes <= LONG_TOKEN_BYTES else math.ceil(text_bytes / BYTES_PER_TOKEN)


def _scored(choice: dict[str, Any]) -> int | None:
    """The number of log-probabilities, of which there is one for each token; None without them."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    listed = logprobs.get("tokens", logprobs.get("content"))
    return len(listed) if isinstance(listed, list) else None


def _texts(choice: dict[str, Any]) -> Iterator[str]:
    """What a completion's chunk or a chat completion's adds: text, reasoning, calls of functions."""
    delta = choice.get("delta")
    fields = delta if isinstance(delta, dict) else choice
    yield from (fields[name] for name in TEXTS if isinstance(fields.get(name), str))
    calls = fields.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield from (text for text in function.values() if isinstance(text, str))
