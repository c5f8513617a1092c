"""JSON of the service as frozen dataclasses.

Reading is tolerant where the service may become newer: fields that a class does not have are kept in `extra`, and
unknown words of an enumeration are passed through. A value of another shape is a `MismatchError`.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

JsonObject = dict[str, Any]
R = TypeVar("R", bound="Record")


class MismatchError(ValueError):
    """JSON that does not have the documented shape; the message says where."""


@dataclasses.dataclass(frozen=True)
class Record:
    """An object that the service sent."""

    @property
    def extra(self) -> JsonObject:
        """The fields that this version of the SDK does not have."""
        known = {field.metadata.get("json", field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in self.to_dict().items() if name not in known}

    def to_dict(self) -> JsonObject:
        """The JSON object as it was sent; for one made by hand, its fields."""
        sent: JsonObject = vars(self).get("_sent", {})
        return dict(sent) if sent else dataclasses.asdict(self)


def read(kind: type[R], value: Any) -> R:
    """`value`, parsed JSON, as `kind`. Raises MismatchError."""
    found: R = _record(kind, value, kind.__name__)
    return found


def read_object(value: Any) -> JsonObject:
    """`value` as the JSON object that it is, where the document gives it no shape. Raises MismatchError."""
    if not isinstance(value, Mapping):
        raise MismatchError(f"expected an object, got {type(value).__name__}")
    return dict(value)


def _record(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise MismatchError(f"{place}: expected an object, got {type(value).__name__}")
    hints = _hints(kind)
    fields: JsonObject = {}
    for field in dataclasses.fields(kind):
        name = field.metadata.get("json", field.name)
        if name in value:
            fields[field.name] = _value(hints[field.name], value[name], f"{place}.{name}")
        elif field.default is dataclasses.MISSING:
            fields[field.name] = _value(hints[field.name], None, f"{place}.{field.name}")
    made = kind(**fields)
    object.__setattr__(made, "_sent", dict(value))
    return made


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints: dict[str, Any] = get_type_hints(kind)
    return hints


def _value(kind: Any, value: Any, place: str) -> Any:
    origin = get_origin(kind)
    if kind is Any or origin is Literal:
        return value
    if origin is Union:
        return _one_of(get_args(kind), value, place)
    if origin is list and isinstance(value, list):
        (item,) = get_args(kind)
        return [_value(item, one, f"{place}[{number}]") for number, one in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        _, item = get_args(kind)
        return {name: _value(item, one, f"{place}.{name}") for name, one in value.items()}
    if _is_record(kind):
        return _record(kind, value, place)
    if isinstance(kind, type) and origin is None:
        accepted = (int, float) if kind is float else (kind,)
        if isinstance(value, accepted) and (kind is bool or not isinstance(value, bool)):
            return value
    raise MismatchError(f"{place}: expected {getattr(kind, '__name__', kind)}, got {type(value).__name__}")


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """The first member of a union that fits: of objects, the one whose fixed words are those of `value`."""
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None) and _words_fit(kind, value)]
    found: list[MismatchError] = []
    for kind in others:
        try:
            return _value(kind, value, place)
        except MismatchError as mismatch:
            found.append(mismatch)
    raise found[0] if found else MismatchError(f"{place}: none of its types fits {type(value).__name__}")


def _words_fit(kind: Any, value: Any) -> bool:
    """Whether `value` has the fixed words of a record (`type: "dpo"`), or is one of a `Literal`'s."""
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    if not _is_record(kind):
        return True
    if not isinstance(value, Mapping):
        return False
    fixed = {name: get_args(hint) for name, hint in _hints(kind).items() if get_origin(hint) is Literal}
    return all(value[name] in words for name, words in fixed.items() if len(words) == 1 and name in value)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, Record)
