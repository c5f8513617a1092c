"""Everything that can go wrong for a user, as one tree. Rendered only in `service.api.web.errors`.

LuthierError (status, type, code, param, message)
+-- InvalidRequest        400  invalid_request_error   what was sent is wrong; the message says where and what to do
|   +-- IllegalTransition 400                          never 409: the SDKs retry 409
|   +-- TooLarge          413                          a body beyond its limit, refused before it is stored
+-- Unauthenticated       401  invalid_request_error   invalid_api_key, mismatched_organization, mismatched_project
+-- Forbidden             403  invalid_request_error
+-- NotFound              404  invalid_request_error   also another project's objects
|   +-- ModelNotFound     404                          model_not_found
+-- RateLimited           429  requests | tokens       rate_limit_exceeded, Retry-After
+-- QuotaExceeded         429  insufficient_quota      more than a project may have; waiting alone does not help
+-- Unavailable           503  server_error            a part of the service is unavailable; retrying is right
|   +-- DatabaseDamaged   503                          the embedded database's file cannot be read as one
JobError                  not an HTTP error: why a job failed, stored in `job.error`
LeaseLost                 not an HTTP error: a worker's claim is no longer its own
"""

from collections.abc import Sequence
from typing import Literal


class LuthierError(Exception):
    """An error that the client receives: status, type, code, param as in OpenAI's envelope."""

    status = 500
    type = "server_error"
    default_code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code


class InvalidRequest(LuthierError):
    status = 400
    type = "invalid_request_error"


class IllegalTransition(InvalidRequest):
    """The object's state does not allow this; 400 because the SDKs retry 409."""


class TooLarge(InvalidRequest):
    """More bytes than this installation accepts."""

    status = 413


class Unauthenticated(LuthierError):
    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class Forbidden(LuthierError):
    status = 403
    type = "invalid_request_error"


class NotFound(LuthierError):
    status = 404
    type = "invalid_request_error"


class ModelNotFound(NotFound):
    default_code = "model_not_found"

    def __init__(self, model: str, available: Sequence[str] = (), *, total: int = 0, alias: str | None = None) -> None:
        """`available`: some of the `total` models that the caller may use instead. `alias`: what stands for `model`."""
        message = f"The model '{model}' does not exist or you do not have access to it."
        if alias is not None:
            message = (
                f"The model alias '{alias}' stands for '{model}', which is gone, or which your project may not call "
                "any more: promote another model to the alias."
            )
        if available:
            more = f" and {total - len(available)} more (GET /v1/models)" if total > len(available) else ""
            message += f" You may call: {', '.join(available)}{more}."
        super().__init__(message, param="model")


class RateLimited(LuthierError):
    """Too much in too short a time; `retry_after_seconds` is when there will be room, if known."""

    status = 429
    default_code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        kind: Literal["requests", "tokens"] = "requests",
        retry_after_seconds: float | None = None,
        may_retry: bool = True,  # False: however long it waits, this request will never fit
    ) -> None:
        super().__init__(message)
        self.type = kind
        self.retry_after_seconds = retry_after_seconds
        self.may_retry = may_retry


class QuotaExceeded(LuthierError):
    """One more than a project may have; the message has the number and what to do."""

    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"


class Unavailable(LuthierError):
    status = 503
    type = "server_error"


class DatabaseDamaged(Unavailable):
    """The file of the embedded database is no database any more; no retry helps."""

    def __init__(self) -> None:
        super().__init__("The database is damaged: the operator of this service has to restore it from a backup.")


class JobError(Exception):
    """Why a job failed; becomes the job's `error {code, message, param}`."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class LeaseLost(Exception):
    """The job was cancelled or passed to another worker: stop, and write nothing more."""
