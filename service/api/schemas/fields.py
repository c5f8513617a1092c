"""What several wire models share: kinds of field, and the model of a request."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, model_validator
from pydantic_core import PydanticKnownError

# No database stores a NUL in text, so requests with one are rejected.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=512)]


def at_most(limit: int) -> BeforeValidator:
    """For an object with keys of the client's: counted before any member is checked."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > limit:
            counts = {"field_type": "Dictionary", "max_length": limit, "actual_length": len(value)}
            raise PydanticKnownError("too_long", counts)
        return value

    return BeforeValidator(check)


class Wire(BaseModel):
    """A request or a part of one: unknown fields are errors, and "5" is not 5."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _one_unknown(cls, value: Any) -> Any:
        """The first finding is the only one that is reported: of many unknown fields one is left to be found."""
        if not isinstance(value, dict) or len(value) <= len(cls.model_fields):
            return value
        unknown = [name for name in value if name not in cls.model_fields]
        return {name: value[name] for name in value if name in cls.model_fields or name == unknown[0]}
