"""The only place that writes the error envelope: everything that goes wrong becomes OpenAI's `{"error": {...}}`.

Errors are raised anywhere below as `domain.errors`; validation errors are worded in `validation`. Logs carry where
something broke, never what a user sent.
"""

import math
import traceback
from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.api.web import validation
from service.domain.errors import InvalidRequest, LuthierError, NotFound, RateLimited, TooLarge

log = structlog.get_logger()
FRAMES = 8


class MethodNotAllowed(InvalidRequest):
    """The path exists, but not for this method."""

    status = 405
    default_code = "method_not_supported"


def envelope(error: LuthierError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """`error` as its HTTP answer."""
    body = {"message": clean(error.message), "type": error.type, "param": clean(error.param), "code": error.code}
    return JSONResponse({"error": body}, status_code=error.status, headers=headers)


def unexpected(error: Exception) -> JSONResponse:
    """The answer to a mistake of ours, which is logged as its type and place."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = [f"{frame.filename}:{frame.lineno}:{frame.name}" for frame in frames]
    log.error("request.crashed", error=type(error).__name__, places=places)
    return envelope(
        LuthierError("The server had an error while processing your request. Its log names it by the x-request-id.")
    )


def clean(text: str | None) -> str | None:
    """`text` without what is not Unicode: half a surrogate pair, sent by a client, cannot be sent back."""
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


def install(app: FastAPI) -> None:
    """Makes `app` answer every kind of error with the envelope."""
    app.add_exception_handler(LuthierError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)


async def _known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, LuthierError)
    return envelope(error, _retry_headers(error))


def _retry_headers(error: LuthierError) -> dict[str, str]:
    """When to come again, for those who came too often: in the two headers that the SDKs wait by."""
    if not isinstance(error, RateLimited):
        return {}
    if not error.may_retry:
        return {"x-should-retry": "false"}
    if error.retry_after_seconds is None:
        return {}
    return {
        "Retry-After": str(max(1, math.ceil(error.retry_after_seconds))),
        "retry-after-ms": str(round(error.retry_after_seconds * 1000)),
    }


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return envelope(validation.worded(error))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses before any code of ours runs."""
    assert isinstance(error, HTTPException)
    return envelope(_translated(request, error), error.headers)


def _translated(request: Request, error: HTTPException) -> LuthierError:
    method, path = request.method, request.url.path
    match error.status_code:
        case 404:
            return NotFound(f"Invalid URL ({method} {path})")
        case 405:
            hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
            return MethodNotAllowed(f"Not allowed to {method} on {path} {hint}")
        case 413:
            return TooLarge(error.detail)
        case _:
            return InvalidRequest(validation.NOT_JSON)
