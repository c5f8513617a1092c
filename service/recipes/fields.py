"""Types of settings that users write as JSON: numbers as JSON has them, and "auto"."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import ErrorDetails

T = TypeVar("T", int, float)

Auto = Literal["auto"]


def _json_integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON has one kind of number: 3.0 is an integer there, `"3"` and `true` are none.
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = BeforeValidator(_json_integer)
# Of a row or a message: how much it counts.
Weight = Annotated[Number, Field(ge=0, le=1)]


class MethodFields(BaseModel):
    """Settings that users write: frozen, and no unknown name is passed over."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class AutoRule:
    """What "auto" comes to: `value` of the number of training examples, and the same as `text` for the documents."""

    text: str
    value: Callable[[int], float]


def resolved(value: Auto | T) -> T:
    """The number; "auto" is replaced before training. Raises ValueError where it was not."""
    if value == "auto":
        raise ValueError('"auto" is resolved when the files are validated')
    return value


def said(finding: ErrorDetails) -> str:
    """What is wrong, in the words of the check that found it: pydantic sets "Value error, " before a ValueError's."""
    error = finding.get("ctx", {}).get("error")
    return str(error) if isinstance(error, Exception) else finding["msg"]
