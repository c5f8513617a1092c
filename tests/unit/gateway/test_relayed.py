"""A stream that broke off is charged for about what it relayed, and what passes is hardly looked at."""

from typing import Any

import orjson
import pytest

from service.gateway import relayed
from service.gateway.relayed import RelayedTokens

WORDS = [" the", " a", " of", " unusually", ".", "\n", " caf\u00e9", " \u4eca\u65e5\u306f"]


def event(choice: dict[str, Any]) -> bytes:
    whole = {"id": "c-1", "created": 1, "model": "luthier-tiny", "choices": [{"index": 0, **choice}]}
    return b"data: " + orjson.dumps(whole) + b"\n\n"


def text(text: str, **more: Any) -> bytes:
    return event({"text": text, "logprobs": None, "finish_reason": None, **more})


def said(content: str | None, **more: Any) -> bytes:
    return event({"delta": {"content": content, **more}, "logprobs": None, "finish_reason": None})


OPENING = said("", role="assistant", refusal=None)


def counted(*arrivals: bytes) -> int:
    tokens = RelayedTokens()
    for whole in arrivals:
        tokens.add(whole)
    return tokens.count


@pytest.mark.parametrize("of", [text, said])
def test_an_event_for_each_token_is_counted_as_one(of: Any) -> None:
    opening = [OPENING] * 8 if of is said else []
    assert counted(*opening, *[of(word) for word in WORDS] * 100) == 800


def test_events_that_arrive_together_are_counted_one_by_one() -> None:
    assert counted(b"".join(text(word) for word in WORDS), text(" b") * 40) == 48


def test_hardly_an_event_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    monkeypatch.setattr(relayed, "parsed", lambda event: looked_at.append(event) or orjson.loads(event[6:]))
    counted(OPENING, *[said(word) for word in WORDS] * 100)
    assert len(looked_at) < 10


@pytest.mark.parametrize("first", [[], [said(" a")] * 3])
def test_an_event_with_many_tokens_is_counted_by_its_text(first: list[bytes]) -> None:
    """As engines send them whose client reads slowly."""
    assert 800 <= counted(OPENING, *first, said(" the" * 900)) <= 1000


def test_reasoning_and_calls_are_counted_too() -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "find", "arguments": '{"city": "' + "x" * 400 + '"}'}}
    assert 100 <= counted(OPENING, said(None, tool_calls=[call])) <= 120
    assert 100 <= counted(OPENING, said(None, reasoning_content="y" * 400)) <= 120


def test_log_probabilities_are_counted_as_tokens_however_long_they_are() -> None:
    entry = {"token": " a", "logprob": -1.0, "top_logprobs": [{"token": " b", "logprob": -2.0}] * 20}
    scored = event({"delta": {"content": " a a a"}, "logprobs": {"content": [entry] * 3}, "finish_reason": None})
    assert counted(OPENING, *[scored] * 10) == 30
    assert counted(*[text(" a a", logprobs={"tokens": [" a", " a"], "token_logprobs": [-1.0, -1.0]})] * 10) == 20


@pytest.mark.parametrize(
    "odd",
    [
        b"data: nonsense\n\n", b": still there\n\n", b"data: []\n\n", b'data: {"choices":7}\n\n', b"\n\n",
        b'data: {"choices":[null,{"delta":[],"text":7,"logprobs":[]}]}\n\n',
        b'data: {"choices":[{"delta":{"content":[1],"tool_calls":[3,{"function":4}]},"logprobs":{"content":5}}]}\n\n',
        b"data: [DONE]\r\n\r\n",
    ],
)  # fmt: skip
def test_what_an_engine_should_not_send_costs_nothing(odd: bytes) -> None:
    assert counted(odd) == 0
