"""From a recipe's settings to the class that implements them with tensors, found by the recipe's name.

Module names are strings, so that this side imports no tensors: `<package>.<name>`, or what an extension's recipe
says in `module`.
"""

import importlib
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

I = TypeVar("I")  # noqa: E741  what an implementation is
C = TypeVar("C", bound=type)


class SettingsClass(Protocol):
    """What is read of the class of a recipe's settings."""

    name: str
    module: str


class Implementations(Generic[I]):
    """The classes of one package, by the class of the settings that they take."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._classes: dict[Any, I] = {}

    def of(self, settings: SettingsClass) -> Callable[[C], C]:
        """A class decorator: the class implements `settings`."""

        def register(implementation: C) -> C:
            if settings in self._classes:
                raise ValueError(f"{settings.name} is implemented twice")
            self._classes[settings] = implementation  # type: ignore[assignment]  # the caller's protocol says what fits
            return implementation

        return register

    def find(self, settings: SettingsClass) -> I:
        """Imports the module of the settings' recipe where it has not been. Raises LookupError or ImportError."""
        if settings not in self._classes:
            module = settings.module or f"{self._package}.{settings.name}"
            importlib.import_module(module)
            if settings not in self._classes:
                raise LookupError(f"{module} implements no {settings.name}")
        return self._classes[settings]
