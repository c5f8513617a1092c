"""Preference pairs, as OpenAI documents them: a conversation and two answers to it, of which one is better."""

from collections.abc import Set
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from service.recipes.fields import Weight
from service.recipes.format import FORMATS, Format, Row
from service.recipes.formats.chat import MESSAGES_LIMIT, TOOLS_LIMIT, Answer, AssistantMessage, ChatRow, Message, Tool


class PreferenceInput(Row):
    """The conversation that both outputs answer; nothing of it is learned, whatever weight its messages have."""

    messages: list[Message] = Field(min_length=1, max_length=MESSAGES_LIMIT)
    tools: list[Tool] = Field([], max_length=TOOLS_LIMIT)
    parallel_tool_calls: bool | None = None

    def answered(self, answer: Answer) -> ChatRow:
        """The conversation with this answer, which alone is learned."""
        before = [
            message.model_copy(update={"weight": 0}) if isinstance(message, AssistantMessage) else message
            for message in self.messages
        ]
        last = AssistantMessage.model_construct(**dict(answer))
        return ChatRow.model_construct(messages=[*before, last], tools=self.tools)


def _one_answer(answers: Any) -> Any:
    if isinstance(answers, list) and len(answers) != 1:
        raise PydanticCustomError("one_answer", "must hold exactly one assistant message")
    return answers


OneAnswer = Annotated[list[Answer], BeforeValidator(_one_answer)]


class PreferenceRow(Row):
    """An input and two answers to it, of which one is better. OpenAI's guide and its specification spell the answers'
    fields differently; a row keeps to one spelling."""

    input: PreferenceInput
    weight: Weight | None = None

    spelling: ClassVar[str]

    @property
    def fields(self) -> tuple[str, str]:
        """The names of the preferred and of the other answer's field."""
        return f"preferred_{self.spelling}", f"non_preferred_{self.spelling}"

    @property
    def conversations(self) -> tuple[ChatRow, ChatRow]:
        """The input with the preferred answer, and with the other."""
        preferred, other = (self.input.answered(getattr(self, field)[0]) for field in self.fields)
        return preferred, other


class PreferenceOutputRow(PreferenceRow):
    """As in OpenAI's guide."""

    spelling: ClassVar[str] = "output"
    preferred_output: OneAnswer
    non_preferred_output: OneAnswer


class PreferenceCompletionRow(PreferenceRow):
    """As in OpenAI's specification."""

    spelling: ClassVar[str] = "completion"
    preferred_completion: OneAnswer
    non_preferred_completion: OneAnswer


@FORMATS.register
class Preference(Format):
    """`input` with `messages`, and `preferred_output` and `non_preferred_output`, or the same with `_completion`: each
    answer is trained on, given the input; nothing of the input.
    """

    name: ClassVar[str] = "preference"
    rows: ClassVar[str] = "preference pairs"
    models: ClassVar[tuple[type[Row], ...]] = (PreferenceOutputRow, PreferenceCompletionRow)

    @classmethod
    def model_of(cls, keys: Set[str]) -> type[Row]:
        """The newer spelling where any key has it; then every key must."""
        newer = {
            name for name in PreferenceCompletionRow.model_fields if name.endswith(PreferenceCompletionRow.spelling)
        }
        return PreferenceCompletionRow if keys & newer else PreferenceOutputRow
