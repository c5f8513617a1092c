"""Chat rows, as OpenAI documents them: a conversation, with tools."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError, from_json

from service.domain.json import DoubledKey, JsonObject, check_keys
from service.recipes.fields import Weight
from service.recipes.format import FORMATS, Format, Row

MESSAGES_LIMIT = 2048
TOOLS_LIMIT = 128


# What OpenAI's own messages have besides, mostly null or empty.
_EMPTY_EXTRAS = ("annotations", "refusal", "audio", "tool_calls", "function_call")
_PARTS = {
    "input_text": "is one of the Responses API; write it",
    "output_text": "is one of the Responses API; write it",
    "refusal": "no chat template shows; write it",
    "thinking": 'is one of Anthropic\'s; write the thoughts as "reasoning_content" of the message, and the text',
    "tool_use": 'is one of Anthropic\'s; write the call into "tool_calls" of the message, and the text',
    "tool_result": 'is one of Anthropic\'s; write it as a message with the role "tool", and other text',
}


def join_text(content: Any) -> Any:
    """A list of text parts as one string, joined by newlines as vLLM does; anything else comes back as it is."""
    if not isinstance(content, list):
        return content
    return "\n".join(_part_text(part) for part in content)


def _part_text(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "input_image", "image"):
        raise PydanticCustomError("part", "holds an image; only text can be trained on")
    if isinstance(kind, str) and kind in _PARTS:
        reason = 'holds a "{kind}" part, which {what} as {"type": "text", "text": "..."}'
        raise PydanticCustomError("part", reason, {"kind": kind, "what": _PARTS[kind]})
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
    """The arguments of a tool call; the empty string means none. Raises ValueError, DoubledKey for a key that is
    there twice."""
    parsed = from_json(arguments or "{}", allow_inf_nan=False)
    if not isinstance(parsed, dict):
        raise ValueError("not an object")
    check_keys(arguments or "{}")
    return parsed


def _object_text(arguments: str) -> str:
    try:
        parse_arguments(arguments)
    except DoubledKey as doubled:
        reason = 'has the key "{key}" twice; remove one of them'
        raise PydanticCustomError("arguments", reason, {"key": doubled.key}) from None
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


class _Message(Row):
    """Of any role. Empty fields of OpenAI's own messages mean nothing, so that responses can be pasted."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty_extras(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if key not in _EMPTY_EXTRAS or value not in ("", [], {})}


class SystemMessage(_Message):
    """Its content may be empty: that suppresses a chat template's default system message."""

    role: Literal["system", "developer"]
    content: Text
    name: str | None = None


class UserMessage(_Message):
    role: Literal["user"]
    content: FilledText
    name: str | None = None


class Answer(_Message):
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
    """An answer within a conversation; `weight` says how much it is learned: 0 not at all, 1 as without it."""

    weight: Weight | None = None


class ToolMessage(_Message):
    role: Literal["tool"]
    content: Text
    tool_call_id: str
    name: str | None = None


class FunctionMessage(_Message):
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
    weight: Weight | None = None

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

    def token_weight(self, index: int) -> float:
        """How much the tokens of a learned message count: its own weight times the row's."""
        message = self.messages[index]
        own = message.weight if isinstance(message, AssistantMessage) else None
        return (1.0 if own is None else own) * (1.0 if self.weight is None else self.weight)


@FORMATS.register_default
class Chat(Format):
    """`{"messages": [...]}`: every assistant message is trained, in conversations of several turns too. `"weight": 0`
    on an assistant message leaves it out, any number between 0 and 1 multiplies the loss of its tokens; what follows
    the last trained message is not read.
    """

    name: ClassVar[str] = "chat"
    rows: ClassVar[str] = "chat messages"
    models: ClassVar[tuple[type[Row], ...]] = (ChatRow,)
