"""What tunings with learned positions before the input have in common: how many there are, and where they begin.

Base of `service.recipes.tunings.prompt` and `prefix`. Without tensors.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from service.recipes.fields import Integer, Whole
from service.recipes.tuning import TuningSettings


class VirtualTokenSettings(TuningSettings):
    """Settings of one of them."""

    num_virtual_tokens: Annotated[Integer, Whole] = Field(
        20,
        ge=1,
        le=256,
        description="how many positions of the base's context they take: a row must fit into the others",
    )
    init: Literal["vocabulary", "random", "text"] = Field(
        "vocabulary",
        description="where they begin: as random tokens of the vocabulary, as normal random numbers, or as the tokens "
        "of `init_text`",
    )
    init_text: str = Field(
        "", max_length=4096, description="for `init: text`: the text, repeated or cut to the number of positions"
    )

    _text_tokens: tuple[int, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _text_where_asked(self) -> Self:
        if (self.init == "text") != bool(self.init_text):
            raise PydanticCustomError("init_text", 'needs both init "text" and a text in init_text, or neither')
        return self

    @property
    def text_tokens(self) -> Sequence[int]:
        """The tokens of `init_text`; empty before `with_text_tokens`."""
        return self._text_tokens

    def with_text_tokens(self, ids: Sequence[int]) -> Self:
        """The same settings for a base whose tokenizer makes `ids` of the text."""
        copied = self.model_copy()
        copied._text_tokens = tuple(ids)
        return copied

    @property
    def prefix_tokens(self) -> int:
        return self.num_virtual_tokens
