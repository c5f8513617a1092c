"""The SDK of Luthier: `Luthier` and `AsyncLuthier`, their exceptions, and the objects of the API in `luthier.models`.

Imports are late, so that the command `luthier` responds at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.async_client import AsyncLuthier
    from luthier.client import Luthier
    from luthier.errors import (
        APIConnectionError,
        APIError,
        APIResponseValidationError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ConfigurationError,
        ConflictError,
        InternalServerError,
        InvalidArgumentError,
        LuthierError,
        NotFoundError,
        PermissionDeniedError,
        RateLimitError,
        UnprocessableEntityError,
        WaitTimeoutError,
    )
    from luthier.generated import models
    from luthier.pages import AsyncPage, AsyncPages, Page
    from luthier.requests import OMIT
    from luthier.streams import AsyncStream, Stream

__version__ = "0.1.0"

__all__ = [
    "OMIT",
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncLuthier",
    "AsyncPage",
    "AsyncPages",
    "AsyncStream",
    "AuthenticationError",
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "InternalServerError",
    "InvalidArgumentError",
    "Luthier",
    "LuthierError",
    "NotFoundError",
    "Page",
    "PermissionDeniedError",
    "RateLimitError",
    "Stream",
    "UnprocessableEntityError",
    "WaitTimeoutError",
    "models",
]

_PLACES = {
    "OMIT": "luthier.requests",
    "AsyncLuthier": "luthier.async_client",
    "Luthier": "luthier.client",
    "AsyncPage": "luthier.pages",
    "AsyncPages": "luthier.pages",
    "Page": "luthier.pages",
    "AsyncStream": "luthier.streams",
    "Stream": "luthier.streams",
}


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("luthier.generated.models")
    if name not in __all__:
        raise AttributeError(f"module 'luthier' has no attribute '{name}'")
    return vars(importlib.import_module(_PLACES.get(name, "luthier.errors")))[name]
