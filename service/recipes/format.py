"""What every row format declares: the models of its rows, how they are recognised, and what of them trains.

A format is one class in a file of its own (`service.recipes.formats`, or an extension's), registered by
`@FORMATS.register`; objectives name the formats that they read. Does not depend on lines, files or tokenizers.
"""

from collections.abc import Collection, Set
from functools import cache, lru_cache
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from service.recipes.registry import Registry


class Row(BaseModel):
    """One row, or a part of one. A null means the same as a missing key, as in OpenAI's own objects, so that a message
    from an API response can be pasted into a row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class Format:
    """What a file's rows are. A subclass's docstring is its paragraph of docs/methods.md: what of a row trains."""

    name: ClassVar[str]
    rows: ClassVar[str]  # in messages: "chat messages"
    models: ClassVar[tuple[type[Row], ...]]  # the spellings of a row
    rows_per_example: ClassVar[int | None] = None  # of the tokenised file; None: as the objective says

    @classmethod
    def public_name(cls) -> str:
        """As OpenAI calls it."""
        return f"fine-tune-{cls.name}"

    @classmethod
    def model_of(cls, keys: Set[str]) -> type[Row]:
        """The spelling that a row with these keys is meant to have."""
        return min(cls.models, key=lambda model: _distance(model, keys))


FORMATS: Registry[type[Format]] = Registry("format")


def recognise(keys: Set[str], read: Collection[type[Format]] = ()) -> type[Format] | None:
    """The format that fits a row with these keys best; None where no format's rows require any of them. Of those that
    fit equally well it is one of `read`.

    By the whole shape: the fewest keys that are missing or too many. So a row that lacks one, or has one too many, gets
    the right error, and a format whose rows have one key more than another's is recognised.
    """
    # A key that no format knows is one too many for each, so that only the known ones decide.
    return _recognised(frozenset(keys & _all_names()), tuple(read))


@lru_cache(maxsize=1024)
def _recognised(keys: frozenset[str], read: Collection[type[Format]]) -> type[Format] | None:
    found = [
        (_distance(model, keys), format) for format in FORMATS for model in format.models if keys & _required(model)
    ]
    return min(found, key=lambda pair: (pair[0], pair[1] not in read))[1] if found else None


def has_all_keys(format: type[Format], keys: Set[str], *, and_no_more: bool) -> bool:
    """Whether a row with these keys lacks none of the format's; with `and_no_more`, whether it has no others either."""
    model = format.model_of(keys)
    return not (_distance(model, keys) if and_no_more else _required(model) - keys)


def lacks_one_key(format: type[Format], keys: Set[str]) -> bool:
    """Whether a row with these keys has all of the format's but one, and no others."""
    model = format.model_of(keys)
    return len(_required(model) - keys) == 1 and _distance(model, keys) == 1 and bool(_required(model) & keys)


@cache
def _required(model: type[Row]) -> Set[str]:
    return {name for name, field in model.model_fields.items() if field.is_required()}


@cache
def _all_names() -> Set[str]:
    """The keys of any format."""
    return frozenset().union(*(_names(model) for format in FORMATS for model in format.models))


@cache
def _names(model: type[Row]) -> Set[str]:
    return frozenset(model.model_fields)


def _distance(model: type[Row], keys: Set[str]) -> int:
    return len(_required(model) - keys) + len(keys - _names(model))
