"""Chat rows, as OpenAI documents them: a conversation, with tools."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError, from_json

from service.domain.json import JsonObject
from service.recipes.format import FORMATS, Format, Row

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


def parse_arguments(arguments: str) -> JsonObject:
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


class Function(Row):
    """What a tool is called and takes; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(Row):
    type: Literal["function"] = "function"
    function: Function


class FunctionCall(Row):
    name: str
    arguments: Annotated[str, AfterValidator(_object_text)]


class ToolCall(Row):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class SystemMessage(Row):
    """Its content may be empty: that suppresses a chat template's default system message."""

    role: Literal["system", "developer"]
    content: Text
    name: str | None = None


class UserMessage(Row):
    role: Literal["user"]
    content: FilledText
    name: str | None = None


class Answer(Row):
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


class ToolMessage(Row):
    role: Literal["tool"]
    content: Text
    tool_call_id: str
    name: str | None = None


class FunctionMessage(Row):
    """Legacy: the answer to a `function_call`."""

    role: Literal["function"]
    content: Text = ""
    name: str


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


class ChatRow(Row):
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


@FORMATS.register_default
class Chat(Format):
    """`{"messages": [...]}`: every assistant message is trained, in conversations of several turns too. `"weight": 0`
    on an assistant message leaves it out; what follows the last trained message is not read.
    """

    name: ClassVar[str] = "chat"
    rows: ClassVar[str] = "chat messages"
    models: ClassVar[tuple[type[Row], ...]] = (ChatRow,)
