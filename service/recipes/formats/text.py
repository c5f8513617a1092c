"""Plain text: documents that a base learns as they are."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from service.recipes.fields import Weight
from service.recipes.format import FORMATS, Format, Row


def _filled(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "is empty")
    return text


class TextRow(Row):
    """One document."""

    text: Annotated[str, AfterValidator(_filled)]
    weight: Weight | None = None

    @property
    def token_weight(self) -> float:
        """How much its tokens count."""
        return 1.0 if self.weight is None else self.weight


@FORMATS.register
class Text(Format):
    """`{"text": ...}`: a document, of which every token is trained, and the end-of-text token after it. No chat
    template is used.
    """

    name: ClassVar[str] = "text"
    rows: ClassVar[str] = "texts"
    models: ClassVar[tuple[type[Row], ...]] = (TextRow,)
