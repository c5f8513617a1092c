"""What several wire models share: kinds of field, and the model of a request."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

# No database stores a NUL in text, so requests with one are rejected.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=512)]


class Wire(BaseModel):
    """A request or a part of one: unknown fields are errors, and "5" is not 5."""

    model_config = ConfigDict(extra="forbid", strict=True)
