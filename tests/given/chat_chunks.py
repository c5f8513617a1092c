"""What an engine says in answer to a chat completion: its chunks as server-sent events, and the whole."""

from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
HEAD = {"id": "c", "created": 1, "model": "tiny"}


def sent(data: Any) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def chunk(delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    """A chunk of the only choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **more}
    return sent({**HEAD, "object": "chat.completion.chunk", "choices": [choice]})


def usage_chunk() -> bytes:
    return sent({**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})


def text_stream(*pieces: str, finish_reason: str = "stop") -> list[bytes]:
    """A whole stream that says these pieces."""
    opening = chunk({"role": "assistant", "content": "", "refusal": None})
    said = [chunk({"content": piece}) for piece in pieces]
    return [opening, *said, chunk({}, finish_reason), usage_chunk(), DONE]


def call_chunk(index: int, arguments: str, name: str | None = None, call_id: str | None = None) -> bytes:
    """A fragment of a call; the first has the name and the id."""
    function = {"arguments": arguments} | ({"name": name} if name else {})
    call = {"index": index, "function": function} | ({"id": call_id, "type": "function"} if call_id else {})
    return chunk({"tool_calls": [call]})


def whole(message: dict[str, Any], finish_reason: str = "stop", **more: Any) -> bytes:
    """The body of a response that is not streamed."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason, **more}
    return orjson.dumps({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE})
