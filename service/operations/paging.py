"""A page of a list: what every list operation returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Some items in order, and whether more follow the last."""

    items: Sequence[Item]
    has_more: bool


def cut(rows: Sequence[Item], limit: int) -> Page[Item]:
    """A page of at most `limit` out of `rows`, which were queried with one more than the limit."""
    return Page(rows[:limit], has_more=0 < limit < len(rows))
