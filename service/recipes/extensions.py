"""Where methods come from: this package's own modules, and the modules that `LUTHIER_EXTENSIONS` names.

A module registers what it brings by the decorators of its classes; nothing is looked for in it.
"""

import importlib
import pkgutil
from functools import cache

from service.settings.environment import extensions

BUILT_IN = ("service.recipes.formats", "service.recipes.tunings", "service.recipes.objectives")


class ExtensionError(ImportError):
    """A module of `LUTHIER_EXTENSIONS` cannot be imported; the message names it and says why."""


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
