"""Prompt and completion: OpenAI's legacy rows."""

from typing import Annotated, ClassVar

from pydantic import Field

from service.recipes.fields import Weight
from service.recipes.format import FORMATS, Format, Row


class PromptRow(Row):
    """A legacy row: the completion is learned."""

    prompt: str
    completion: Annotated[str, Field(min_length=1)]
    weight: Weight | None = None

    @property
    def token_weight(self) -> float:
        """How much the trained tokens count."""
        return 1.0 if self.weight is None else self.weight


@FORMATS.register
class Completion(Format):
    """`{"prompt": ..., "completion": ...}`: the completion and the end-of-text token are trained. No chat template is
    used; such a model is asked through `/v1/completions`.
    """

    name: ClassVar[str] = "completion"
    rows: ClassVar[str] = "prompt/completion pairs"
    models: ClassVar[tuple[type[Row], ...]] = (PromptRow,)
