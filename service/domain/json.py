"""JSON whose shape others define: a client's free fields, an engine's response, a chat template's message.

Data whose shape we define has a type of its own. Parsers keep the last of two equal keys in silence; those here refuse
them.
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


class NoNumber(ValueError):
    """`NaN` or an infinity where a value belongs: Python's parser knows them, JSON does not."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class _Pairs(list[tuple[str, Any]]):
    """An object with all its keys, in order."""


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises DoubledKey, NoNumber, JSONDecodeError, RecursionError, UnicodeDecodeError."""
    doubled = False

    def as_object(pairs: list[tuple[str, Any]]) -> JsonObject:
        nonlocal doubled
        found = dict(pairs)
        doubled = doubled or len(found) < len(pairs)
        return found

    value = json.loads(text, object_pairs_hook=as_object, parse_constant=_refuse)
    if doubled:
        raise _doubled(text)
    return value


def _refuse(word: str) -> None:
    raise NoNumber(word)


def check_keys(text: str) -> None:
    """Raises DoubledKey for the first object of a valid JSON text, at any depth, that has a key twice."""
    try:
        _KEYS.decode(text)
    except _Seen:
        raise _doubled(text) from None


class _Seen(Exception):
    """Some object has a key twice."""


def _without_doubled(pairs: list[tuple[str, None]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise _Seen


_KEYS = json.JSONDecoder(object_pairs_hook=_without_doubled)


def _doubled(text: str | bytes) -> DoubledKey:
    found = _find(json.loads(text, object_pairs_hook=_Pairs), "")
    assert found is not None, "one was seen"
    return DoubledKey(*found)


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
