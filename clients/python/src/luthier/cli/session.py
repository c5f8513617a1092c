"""The client that a command uses, and how its errors end: what is wrong, and what to do."""

import math
from typing import TYPE_CHECKING, Optional

import typer

from luthier.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APITimeoutError,
    AuthenticationError,
    InternalServerError,
    LuthierError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)

if TYPE_CHECKING:
    from luthier.client import Luthier

EXIT_FAILED = 1  # the job failed
EXIT_USAGE = 2  # typer's own
EXIT_GATE = 3  # the job succeeded, and its metrics are not what was asked for
EXIT_CANCELLED = 4
EXIT_ERROR = 5  # the request could not be carried out
EXIT_TIMEOUT = 124
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141  # 128 and SIGPIPE, as shells say it
VERDICTS = {"succeeded": 0, "failed": EXIT_FAILED, "cancelled": EXIT_CANCELLED}

REMEDIES: tuple[tuple[type[LuthierError], str], ...] = (
    (APITimeoutError, "Try again. If it stays so, ask whoever runs the service to look at `luthierd doctor`."),
    (APIConnectionError, "Is the service running, and LUTHIER_URL right? `luthier login` sets another URL."),
    (AuthenticationError, "Run `luthier login` with a key that is valid, or set LUTHIER_API_KEY."),
    (PermissionDeniedError, "Use a key that may do this; `luthier login` sets another one."),
    (
        NotFoundError,
        "List what there is: `luthier jobs ls`, `luthier files ls`, `luthier models ls`, `luthier aliases ls`, "
        "`luthier keys ls`.",
    ),
    (RateLimitError, "Wait a moment and try again."),
    (InternalServerError, "Try again. If it stays so, show the request id to whoever runs the service."),
    (APIResponseValidationError, "Check the URL with `luthier login`, and update luthier-client."),
)


def client() -> "Luthier":
    """The client of the service that is configured."""
    from luthier.client import Luthier

    return Luthier()


def number(value: Optional[float]) -> Optional[float]:
    """For options of numbers: NaN is less than no limit, and ends no waiting. Raises BadParameter."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is no number.")
    return value


def remedy(error: LuthierError) -> str:
    """What to do about an error; empty where its message says it."""
    if isinstance(error, PermissionDeniedError) and error.param:
        return ""  # no key may do it with this object
    return next((text for kind, text in REMEDIES if isinstance(error, kind)), "")


def described(error: LuthierError) -> str:
    """The lines that a command ends with."""
    from luthier.errors import APIError, APIStatusError

    lines = [f"luthier: {error}"]
    if isinstance(error, APIError) and error.param:
        lines.append(f"  parameter: {error.param}")
    if isinstance(error, APIStatusError) and error.status_code >= 500 and error.request_id:
        lines.append(f"  request id: {error.request_id}")
    what_to_do = remedy(error)
    return "\n".join([*lines, f"  {what_to_do}"] if what_to_do else lines)
