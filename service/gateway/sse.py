"""Server-sent events of an engine, cut into whole events and otherwise left as they are.

Must not know HTTP. An event is never written anew: the gateway looks into the few that carry a usage, an error or the
end. Only what its own wish for a usage brought is taken out, where the client had not asked: one chunk, and nulls.
"""

import re
from itertools import pairwise
from typing import Any

import orjson

from service.domain.json import JsonObject

_END_OF_EVENT = re.compile(rb"\n\r?\n")
_NO_USAGE = b',"usage":null'  # these bytes cannot stand inside a JSON string: its quotes are escaped
_DONE = b"[DONE]"


class Events:
    """What an engine's stream has said so far: feed it every chunk."""

    def __init__(self, *, keep_usage: bool) -> None:
        self._keep_usage = keep_usage
        self._rest = b""
        self.usage: JsonObject | None = None
        self.error: JsonObject | None = None
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """The events that `chunk` completes, for the client. Ends before an error event, which `error` then holds."""
        received = self._rest + chunk
        end = max((match.end() for match in _END_OF_EVENT.finditer(received)), default=0)
        whole, self._rest = received[:end], received[end:]
        if not self._keep_usage:
            whole = whole.replace(_NO_USAGE, b"")
        if b'"usage"' in whole or b'"error"' in whole or _DONE in whole:
            return b"".join(event for event in _split(whole) if self._passes(event))
        return whole

    def _passes(self, event: bytes) -> bool:
        if self.error is not None:
            return False
        said = _said(event)
        if said == _DONE:
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


def _split(whole: bytes) -> list[bytes]:
    ends = [match.end() for match in _END_OF_EVENT.finditer(whole)]
    return [whole[start:end] for start, end in pairwise([0, *ends])]


def _said(event: bytes) -> Any:
    """What the event's data says: `[DONE]`, JSON, or None for anything else (a comment, JSON that is not)."""
    if not event.startswith(b"data:"):
        return None
    data = event[len(b"data:") :].strip()
    if data == _DONE:
        return _DONE
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
