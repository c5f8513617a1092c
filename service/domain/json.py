"""JSON whose shape others define: a client's free fields, an engine's response, a chat template's message.

Data whose shape we define has a type of its own. Parsers keep the last of two equal keys; `check_keys` finds them.
"""

import json
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]

SHOWN_CHARACTERS = 64


class DoubledKey(ValueError):
    """An object has `key` twice. `path` leads to it: `messages[1].content`."""

    def __init__(self, path: str, key: str) -> None:
        super().__init__(path)
        self.path = path
        self.key = key


class _Pairs(list[tuple[str, Any]]):
    """An object with all its keys, in order."""


def check_keys(text: str) -> None:
    """Raises DoubledKey for the first object of a valid JSON text, at any depth, that has a key twice."""
    doubled = False

    def seen(pairs: list[tuple[str, None]]) -> None:
        nonlocal doubled
        doubled = doubled or len(dict(pairs)) < len(pairs)

    _parse(text, seen)
    if doubled:
        found = _find(_parse(text, _Pairs), "")
        assert found is not None, "one was seen"
        raise DoubledKey(*found)


def _parse(text: str, pairs: Any) -> Any:
    # Numbers become their length: their values are not needed, and Python refuses to read very long integers.
    return json.loads(text, object_pairs_hook=pairs, parse_int=len, parse_float=len)


def _find(value: object, path: str) -> tuple[str, str] | None:
    """Path and key of the first doubled key below `path`, in the order of the text."""
    if isinstance(value, _Pairs):
        known: set[str] = set()
        for key, item in value:
            place = f"{path}.{shortened(key)}" if path else shortened(key)
            if key in known:
                return place, shortened(key)
            known.add(key)
            if found := _find(item, place):
                return found
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if found := _find(item, f"{path}[{index}]"):
                return found
    return None


def shortened(text: str) -> str:
    """A key as error messages show it: it is the user's, and may be as long as the whole text."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
