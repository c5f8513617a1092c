"""Kinds of field that several wire models share."""

from typing import Annotated

from pydantic import StringConstraints

# No database keeps a NUL in text, so none may come in.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=512)]
