"""The settings in a process' environment, and errors in them by the names of the variables.

The first step of every command. Never shows a value, which may be a secret.
"""

import difflib
import os
from collections.abc import Mapping

import structlog
from pydantic import ValidationError

from service.settings.settings import Settings

PREFIX = "LUTHIER_"
CLIENTS = frozenset({"LUTHIER_URL", "LUTHIER_API_KEY"})  # what clients read, in the same shell perhaps
log = structlog.get_logger()


class SettingsError(ValueError):
    """Settings that cannot be used; the message names each variable."""


def read_settings() -> Settings:
    """The settings. Raises SettingsError."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = [
            f"{_variable(found['loc'])}: {found['msg'].removeprefix('Value error, ')}"
            for found in error.errors(include_input=False)
        ]
        raise SettingsError("; ".join(wrong)) from None


def extensions(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The modules of `LUTHIER_EXTENSIONS`: known before any setting is, since they decide what code there is."""
    names = environment.get(f"{PREFIX}EXTENSIONS", "").split(",")
    return [name.strip() for name in names if name.strip()]


def warn_of_unknown(environment: Mapping[str, str] = os.environ) -> None:
    """Logs each LUTHIER_ variable that is no setting: a misspelt one would be ignored silently."""
    known = [_variable((name,)) for name in Settings.model_fields]
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and name not in CLIENTS:
            nearest = difflib.get_close_matches(name, known, n=1)
            log.warning("setting.unknown", name=name, nearest=nearest[0] if nearest else None)


def _variable(location: tuple[int | str, ...]) -> str:
    return PREFIX + str(location[0]).upper()
