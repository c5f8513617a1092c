"""The rows of a training file as OpenAI documents them: chat, legacy prompt/completion, and preference rows.

Knows the shape of one row; must not know lines, files or tokenizers. A null says the same as a missing key, as in
OpenAI's own objects, so that a message from an API answer can be pasted into a row.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, from_json

MESSAGES_LIMIT = 2048
TOOLS_LIMIT = 128


def join_text(content: Any) -> Any:
    """A list of text parts as one string, joined by newlines as vLLM does; anything else comes back as it is."""
    if not isinstance(content, list):
        return content
    return "\n".join(_part_text(part) for part in content)


def _part_text(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_image", "image"):
        raise PydanticCustomError("part", "holds an image; only text can be trained on")
    if kind != "text" or not isinstance(part.get("text"), str):
        raise PydanticCustomError("part", 'holds a part that is not {"type": "text", "text": "..."}')
    if len(part) > 2:
        raise PydanticCustomError("part", 'holds a text part with more than "type" and "text"')
    return str(part["text"])


def _filled(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "is empty")
    return text


def parse_arguments(arguments: str) -> dict[str, Any]:
    """The arguments of a tool call; the empty string means none. Raises ValueError."""
    parsed = from_json(arguments or "{}", allow_inf_nan=False)
    if not isinstance(parsed, dict):
        raise ValueError("not an object")
    return parsed


def _object_text(arguments: str) -> str:
    try:
        parse_arguments(arguments)
    except ValueError:
        raise PydanticCustomError("arguments", "is not the JSON text of an object") from None
    return arguments


Text = Annotated[str, BeforeValidator(join_text)]
FilledText = Annotated[Text, AfterValidator(_filled)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class Function(_Wire):
    """What a tool is called and takes; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Wire):
    type: Literal["function"] = "function"
    function: Function


class FunctionCall(_Wire):
    name: str
    arguments: Annotated[str, AfterValidator(_object_text)]


class ToolCall(_Wire):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class SystemMessage(_Wire):
    """Its content may be empty: that keeps a chat template's default system message away."""

    role: Literal["system", "developer"]
    content: Text
    name: str | None = None


class UserMessage(_Wire):
    role: Literal["user"]
    content: FilledText
    name: str | None = None


class Answer(_Wire):
    """What an assistant says or calls. `reasoning` is another word for `reasoning_content`."""

    role: Literal["assistant"]
    content: Text | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] = Field([], max_length=TOOLS_LIMIT)
    function_call: FunctionCall | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.content or "").strip() and not self.tool_calls and self.function_call is None:
            raise PydanticCustomError("empty", "is empty")
        return self


class AssistantMessage(Answer):
    """An answer within a conversation; `weight` 0 keeps it from being learned."""

    weight: Annotated[int, Field(ge=0, le=1)] | None = None


class ToolMessage(_Wire):
    role: Literal["tool"]
    content: Text
    tool_call_id: str
    name: str | None = None


class FunctionMessage(_Wire):
    """Legacy: the answer to a `function_call`."""

    role: Literal["function"]
    content: Text = ""
    name: str


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


class ChatRow(_Wire):
    """One conversation. `parallel_tool_calls` is accepted as at OpenAI; no prompt shows it."""

    messages: list[Message] = Field(min_length=1, max_length=MESSAGES_LIMIT)
    tools: list[Tool] = Field([], max_length=TOOLS_LIMIT)
    parallel_tool_calls: bool | None = None
    functions: list[Function] = Field([], max_length=TOOLS_LIMIT)

    @model_validator(mode="after")
    def _trains_something(self) -> "ChatRow":
        if not any(isinstance(message, AssistantMessage) for message in self.messages):
            raise PydanticCustomError("untrained", "has no assistant message")
        if not self.trained:
            raise PydanticCustomError("untrained", "trains no token: every assistant message has weight 0")
        return self

    @property
    def trained(self) -> list[int]:
        """Indices of the messages that are learned."""
        return [
            index
            for index, message in enumerate(self.messages)
            if isinstance(message, AssistantMessage) and message.weight != 0
        ]


class PromptRow(_Wire):
    """A legacy row: the completion is learned."""

    prompt: str
    completion: Annotated[str, Field(min_length=1)]


class PreferenceInput(_Wire):
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


OneAnswer = Annotated[list[Answer], Field(min_length=1, max_length=1)]


class PreferenceRow(_Wire):
    """An input and two answers to it, of which one is better. OpenAI's guide and its specification spell the answers'
    fields differently; a row keeps to one spelling."""

    input: PreferenceInput

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


Row = ChatRow | PromptRow | PreferenceRow
