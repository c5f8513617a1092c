"""Answers with a label each, as preferences without pairs: whether this one is wanted. TRL's unpaired preferences."""

from typing import ClassVar, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from service.recipes.format import FORMATS, Format, Row
from service.recipes.formats.chat import AssistantMessage, ChatRow
from service.recipes.formats.completion import PromptRow


class UnpairedChatRow(ChatRow):
    """A conversation whose last message is the answer that the label is of; the row's weight is the example's."""

    label: bool

    @model_validator(mode="after")
    def _ends_with_the_answer(self) -> Self:
        last = self.messages[-1]
        if not isinstance(last, AssistantMessage):
            raise PydanticCustomError("untrained", "must end with the assistant message that the label is of")
        if last.weight is not None:
            raise PydanticCustomError("untrained", 'has a weight in its last message; write it beside "label"')
        return self

    @property
    def trained(self) -> list[int]:
        return [len(self.messages) - 1]

    def token_weight(self, index: int) -> float:
        return 1.0


class UnpairedPromptRow(PromptRow):
    """A prompt and the completion that the label is of; the row's weight is the example's."""

    label: bool

    @property
    def token_weight(self) -> float:
        return 1.0


@FORMATS.register
class Unpaired(Format):
    """`{"messages": [...], "label": true}`, or `{"prompt": ..., "completion": ..., "label": false}`: the last answer,
    or the completion, is trained on, as one that is wanted or not.
    """

    name: ClassVar[str] = "unpaired"
    rows: ClassVar[str] = "answers with a label"
    models: ClassVar[tuple[type[Row], ...]] = (UnpairedChatRow, UnpairedPromptRow)
