"""A stream of events is cut into whole ones, whatever the network's chunks are, and never written again."""

import pytest

from service.gateway.events import EngineEvents

FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"a,\\"usage\\":null [DONE] \\"error\\""}}]}\n\n'
SECOND = b'data: {"choices": [{"index":0,"delta":{"content":"b"}}],"usage":null}\n\n'
SECOND_WITHOUT = b'data: {"choices": [{"index":0,"delta":{"content":"b"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
ERROR = b'data: {"error":{"message":"no","code":400}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_any_chunks_give_the_same_bytes(size: int, newline: bytes) -> None:
    stream = (FIRST + b": a comment\n\n" + SECOND + USAGE + DONE).replace(b"\n", newline)
    events = EngineEvents(keep_usage=True)
    fed = [events.feed(stream[start : start + size]) for start in range(0, len(stream), size)]
    assert b"".join(fed) == stream
    assert all(part.endswith(newline * 2) for part in fed if part)
    assert events.done


@pytest.mark.parametrize("size", [1, 1000])
def test_only_what_our_wish_for_a_usage_brought_is_taken_out(size: int) -> None:
    stream = FIRST + SECOND + USAGE + DONE
    events = EngineEvents(keep_usage=False)
    fed = [events.feed(stream[start : start + size]) for start in range(0, len(stream), size)]
    assert b"".join(fed) == FIRST + SECOND_WITHOUT + DONE
    assert events.usage == {"prompt_tokens": 3, "completion_tokens": 2}


def test_a_usage_beside_choices_stays() -> None:
    event = b'data: {"choices":[{"index":0,"text":"x"}],"usage":{"prompt_tokens":1}}\n\n'
    assert EngineEvents(keep_usage=False).feed(event) == event


def test_half_an_event_waits_for_its_other_half() -> None:
    events = EngineEvents(keep_usage=True)
    assert events.feed(FIRST + SECOND[:5]) == FIRST
    assert events.feed(SECOND[5:]) == SECOND
    assert not events.done


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_blank_line_more_hides_nothing(size: int) -> None:
    stream = FIRST + b"\n" + USAGE + b"\r\n" + DONE
    events = EngineEvents(keep_usage=True)
    assert b"".join(events.feed(stream[start : start + size]) for start in range(0, len(stream), size)) == stream
    assert (events.usage, events.done) == ({"prompt_tokens": 3, "completion_tokens": 2}, True)


def test_nothing_follows_an_error() -> None:
    events = EngineEvents(keep_usage=True)
    assert events.feed(FIRST + ERROR + DONE) == FIRST
    assert events.error == {"message": "no", "code": 400}
    assert not events.done


def test_what_is_not_json_passes() -> None:
    event = b'data: {"usage": NaN, "choices":[]}\n\n'
    assert EngineEvents(keep_usage=False).feed(event) == event
