"""The server-sent events of an engine's stream, which pass as they are: used by `forward` and `relayed`, without HTTP.

Only events that hold a usage, an error or the end are parsed. Only the usage that we asked for and the client did not
is removed: one chunk, and nulls.
"""

import re
from itertools import pairwise
from typing import Any

import orjson

from service.domain.json import JsonObject

DONE = b"[DONE]"
_END_OF_EVENT = re.compile(rb"\n(?:\r?\n)+")
_ENDS_OF_EVENT = (b"\n\n", b"\n\r\n")
_NO_USAGE = b',"usage":null'  # cannot be inside a JSON string, whose quotes are escaped


class EngineEvents:
    """Server-sent events of an engine, split into whole events and otherwise unchanged: feed it every chunk."""

    def __init__(self, *, keep_usage: bool) -> None:
        self._keep_usage = keep_usage
        self._rest = b""
        self.usage: JsonObject | None = None
        self.error: JsonObject | None = None
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """The events that `chunk` completes, for the client. Ends before an error event, which `error` then holds."""
        received = self._rest + chunk if self._rest else chunk
        if received.endswith(_ENDS_OF_EVENT):  # as nearly always
            whole, self._rest = received, b""
        else:
            end = max((match.end() for match in _END_OF_EVENT.finditer(received)), default=0)
            whole, self._rest = received[:end], received[end:]
        if not self._keep_usage:
            whole = whole.replace(_NO_USAGE, b"")
        if b'"usage"' in whole or b'"error"' in whole or DONE in whole:
            return b"".join(event for event in split(whole) if self._passes(event))
        return whole

    def _passes(self, event: bytes) -> bool:
        if self.error is not None:
            return False
        said = parsed(event)
        if said == DONE:
            self.done = True
        elif isinstance(said, dict):
            return self._look_at(said)
        return True

    def _look_at(self, said: JsonObject) -> bool:
        if isinstance(said.get("error"), dict):
            self.error = said["error"]
            return False
        if isinstance(said.get("usage"), dict):
            self.usage = said["usage"]
            return self._keep_usage or said.get("choices") != []
        return True


def split(whole: bytes) -> list[bytes]:
    """Each event with its end; what is behind the last end is left out."""
    ends = [match.end() for match in _END_OF_EVENT.finditer(whole)]
    return [whole[start:end] for start, end in pairwise([0, *ends])]


def parsed(event: bytes) -> Any:
    """The event's data: `[DONE]`, parsed JSON, or None for anything else (a comment, invalid JSON)."""
    event = event.lstrip(b"\r\n")
    if not event.startswith(b"data:"):
        return None
    data = event[len(b"data:") :].strip()
    if data == DONE:
        return DONE
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
