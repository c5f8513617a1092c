"""Every exception of the SDK: one tree, with the names of OpenAI's SDK.

`LuthierError` is everything. `APIError` is everything that a request can end in: without a response
(`APIConnectionError`, `APITimeoutError`), with one (`APIStatusError` and a class per status), or with one that the SDK
cannot read (`APIResponseValidationError`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:  # `luthier --help` imports this module, and need not wait for httpx
    import httpx


class LuthierError(Exception):
    """Anything that this package raises on purpose."""


class ConfigurationError(LuthierError):
    """The SDK does not know where the service is, or with which key to call it."""


class InvalidArgumentError(LuthierError, ValueError):
    """An argument of which no request can be made."""


class WaitTimeoutError(LuthierError, TimeoutError):
    """A job has not ended in the time that the caller gave it; it continues."""


class APIError(LuthierError):
    """A request that did not succeed. `body` is what the service sent, parsed if it was JSON."""

    def __init__(self, message: str, *, request: "Optional[httpx.Request]" = None, body: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.request = request
        self.body = body
        detail = body.get("error") if isinstance(body, Mapping) else None
        fields: Mapping[str, Any] = detail if isinstance(detail, Mapping) else {}
        self.type: Optional[str] = fields.get("type")
        self.param: Optional[str] = fields.get("param")
        self.code: Optional[str] = fields.get("code")


class APIConnectionError(APIError):
    """No response came, or it broke off."""


class APITimeoutError(APIConnectionError):
    """No response came in time."""


class APIResponseValidationError(APIError):
    """A response came that is not of the documented shape."""


class APIStatusError(APIError):
    """A response with status 4xx or 5xx."""

    def __init__(self, message: str, *, response: "httpx.Response", body: Any = None) -> None:
        super().__init__(message, request=response.request, body=body)
        self.response = response
        self.status_code = response.status_code
        self.request_id: Optional[str] = response.headers.get("x-request-id")


class BadRequestError(APIStatusError):
    """400: the request is wrong; `param` says where."""


class AuthenticationError(APIStatusError):
    """401: the key is missing, wrong or revoked."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: there is no such object in the project of the key."""


class ConflictError(APIStatusError):
    """409: the object is in a state that does not allow this."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed, but cannot be carried out."""


class RateLimitError(APIStatusError):
    """429: over a limit, after the retries."""


class InternalServerError(APIStatusError):
    """5xx: the service failed or is unavailable, after the retries."""


_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error(response: "httpx.Response") -> APIStatusError:
    """The exception for a response that was read and has status 4xx or 5xx."""
    try:
        body = response.json()
    except ValueError:
        body = response.text or None
    detail = body.get("error") if isinstance(body, Mapping) else None
    said = detail.get("message") if isinstance(detail, Mapping) else None
    message = str(said) if said else f"The service returned status {response.status_code} without an error object."
    default = InternalServerError if response.status_code >= 500 else APIStatusError
    return _BY_STATUS.get(response.status_code, default)(message, response=response, body=body)
