"""The kinds of work that this installation knows. A kind registers itself by one call, in the module that owns it.

A kind defines the subject of its work and what a claim changes there; workers define how it is done
(`workers.supervisor.kinds`). Its functions run inside the claim's transaction: they may use the database only.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.db.connection import Transaction
from service.domain.work import Work
from service.recipes.registry import import_methods

S = TypeVar("S")


@dataclass(frozen=True)
class Kind(Generic[S]):
    """`name` has at most 32 characters and is stored in the database.

    `begin` returns what a claim works on, with what the claim changes there already written; None when there is nothing
    to do any more, and the work is removed. `abandon` ends the subject in error after this many crashes, 0 for a bug in
    the service itself; the work is removed by the caller. `module` is where an extension's workers register how it is
    done (`workers.supervisor.kinds.register`): a name, so that this side imports no tensors.
    """

    name: str
    begin: Callable[[Transaction, Work], Awaitable[S | None]]
    abandon: Callable[[Transaction, Work, int], Awaitable[None]]
    module: str = ""


_kinds: dict[str, Kind[Any]] = {}


def register(kind: Kind[S]) -> Kind[S]:
    """Makes the kind known. Raises ValueError for a name that another one has."""
    if kind.name in _kinds:
        raise ValueError(f"There are two kinds of work with the name '{kind.name}'.")
    if not 0 < len(kind.name) <= 32:
        raise ValueError(f"The name of a kind of work has 1 to 32 characters, not '{kind.name}'.")
    _kinds[kind.name] = kind
    return kind


def find(name: str) -> Kind[Any]:
    """The kind of that name. Raises KeyError where there is none."""
    import_methods()
    return _kinds[name]


def known() -> list[Kind[Any]]:
    """All kinds, those of `LUTHIER_EXTENSIONS` too, in the order in which they were registered."""
    import_methods()
    return list(_kinds.values())
