"""Kinds of field that several wire models share."""

from typing import Annotated, Any

from pydantic import BeforeValidator, StringConstraints

# No database keeps a NUL in text, so none may come in.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=512)]


def _as_json_integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON has one kind of number: 1.0 is an integer there, and true is none.
Integer = Annotated[int, BeforeValidator(_as_json_integer)]
