"""The error envelope, for the OpenAPI document; it is written by `service.api.web.errors`."""

from typing import Any

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


# Of an operation by which a project gets more of what it may have only so much of.
QUOTA: dict[int | str, dict[str, Any]] = {
    429: {"model": ErrorEnvelope, "description": "The project may have no more; the message has the number"}
}
