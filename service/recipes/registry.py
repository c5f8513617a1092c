"""Names to classes: what every process of an installation can be asked for.

Filled and closed by its first read, in whatever process: types, documents and checks that were built before a method
was registered would not know it. Only then are the methods' modules imported, so that an extension may import any room.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from typing import ClassVar, Generic, Protocol, TypeVar

from service.settings.environment import extensions

_NAME = re.compile(r"[a-z][a-z0-9_]*")


BUILT_IN = ("service.recipes.formats", "service.recipes.tunings", "service.recipes.objectives")


class ExtensionError(ImportError):
    """A module of `LUTHIER_EXTENSIONS` cannot be imported; the message names it and says why."""


class Named(Protocol):
    """A class that a request names."""

    name: ClassVar[str]


C = TypeVar("C", bound=type[Named])


class Registry(Generic[C]):
    """Classes by their `name`; the default first, then by name."""

    def __init__(self, noun: str, reserved: frozenset[str] = frozenset()) -> None:
        """`reserved` are names of fields that stand beside a method's own in requests."""
        self.noun = noun
        self._reserved = reserved | {"type"}
        self._classes: dict[str, C] = {}
        self._default: str | None = None
        self._closed = False

    def register(self, method: C) -> C:
        """For a decorator. Raises ValueError for a name that is taken or none, RuntimeError once it has been read."""
        name = method.name
        if _NAME.fullmatch(name) is None or name in self._reserved:
            raise ValueError(f"not a name for a {self.noun}: {name!r}")
        if name in self._classes:
            raise ValueError(f"the {self.noun} '{name}' is registered twice")
        if self._closed:
            raise RuntimeError(f"the {self.noun} '{name}' comes too late: name its module in LUTHIER_EXTENSIONS")
        self._classes[name] = method
        return method

    def register_default(self, method: C) -> C:
        """As `register`; a request that names none means this one."""
        if self._default is not None:
            raise ValueError(f"the default {self.noun} is '{self._default}' already")
        self._default = self.register(method).name
        return method

    @property
    def default(self) -> C:
        """What a request means that names none."""
        self._close()
        assert self._default is not None, f"no default {self.noun}"
        return self._classes[self._default]

    @property
    def names(self) -> list[str]:
        self._close()
        return sorted(self._classes, key=lambda name: (name != self._default, name))

    def __iter__(self) -> Iterator[C]:
        return iter([self._classes[name] for name in self.names])

    def find(self, name: str) -> C | None:
        """The class of that name."""
        self._close()
        return self._classes.get(name)

    def _close(self) -> None:
        """Raises ExtensionError."""
        if not self._closed:
            import_methods()
            self._closed = True


@cache
def import_methods() -> None:
    """Imports every module that brings a method, once. Raises ExtensionError."""
    for name in BUILT_IN:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{name}.{module.name}")
    for name in extensions():
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ExtensionError(f"LUTHIER_EXTENSIONS names '{name}', which cannot be imported: {error}") from error
