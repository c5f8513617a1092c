"""The error envelope, for the OpenAPI document; it is written by `service.api.web.errors`."""

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What went wrong: a sentence that says what to do, and names for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """Every answer whose status is 400 or above."""

    error: ErrorDetail
