"""The error envelope, for the OpenAPI document; it is written by `service.api.web.errors`."""

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What went wrong: a message that says what to do, and names for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """Every response whose status is 400 or above."""

    error: ErrorDetail
