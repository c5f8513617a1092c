"""Wire models of a request of POST /v1/responses: OpenAI's fields, types and ranges only.

What is well-formed is decided here, what can be served in `service.api.responses.request`. Kinds of items, parts and
tools that nothing here can read have models of their own, so that a request with one is refused by its place. The
OpenAPI document shows such fields with the only value that is served.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from service.api.schemas.fields import Text, Wire, at_most
from service.api.schemas.inference import MESSAGE_LIMIT, METADATA_LIMIT, NonEmpty, Unicode
from service.domain.json import JsonObject
from service.recipes.fields import Whole

ITEM_LIMIT = MESSAGE_LIMIT - 1  # `instructions` are one more message

Name = Annotated[Text, StringConstraints(min_length=1)]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


def _kind(*known: str) -> Discriminator:
    """By `type`: one of those known, else "other"; an object without a type is a message, where there are any."""

    def tag(value: Any) -> str:
        found = value.get("type") if isinstance(value, dict) else known[0]
        if found is None and "message" in known:
            found = "message"
        return f"kind:{found}" if found in known else "kind:other"

    return Discriminator(tag)


class Other(BaseModel):
    """Of another kind than those that are read here."""

    model_config = ConfigDict(extra="allow")

    type: str


def _given(value: Any) -> Any:
    """Without nulls, also of unknown names: programs send items back with every field of their classes."""
    if not isinstance(value, dict):
        return value
    return {name: field for name, field in value.items() if field is not None and (name, field) != ("async", False)}


class Given(Wire):
    """A part, an item or a tool, without what is null; `async`, which Python cannot name, may be false."""

    without_nulls = model_validator(mode="before")(_given)


class InputTextPart(Given):
    type: Literal["input_text", "output_text"]
    text: Unicode
    annotations: list[JsonObject] | None = Field(None, description="Only `[]`: citations cannot be shown to a model.")
    logprobs: list[JsonObject] | None = Field(None, description="Accepted; changes nothing.")
    prompt_cache_breakpoint: JsonObject | None = Field(None, description="Accepted; changes nothing.")


class InputReasoningPart(Given):
    type: Literal["reasoning_text"]
    text: Unicode


Part: TypeAlias = Annotated[
    Annotated[InputTextPart, Tag("kind:input_text")]
    | Annotated[InputTextPart, Tag("kind:output_text")]
    | Annotated[SkipJsonSchema[Other], Tag("kind:other")],
    _kind("input_text", "output_text"),
    WithJsonSchema(InputTextPart.model_json_schema()),
]
Content = Annotated[list[Part], Field(min_length=1, max_length=MESSAGE_LIMIT, fail_fast=True)] | Unicode


class Item(Given):
    """What every item of `input` may have."""

    id: Text | None = Field(None, description="Accepted; nothing is stored that it could name.")
    status: ItemStatus | None = None


class MessageItem(Item):
    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    phase: Literal["commentary", "final_answer"] | None = None


class Calling(Item):
    """What a call and its output have in common."""

    call_id: Name
    namespace: Annotated[Text | None, WithJsonSchema({"type": "null"})] = None
    caller: Annotated[JsonObject | None, WithJsonSchema({"type": "null"})] = None


class FunctionCallItem(Calling):
    type: Literal["function_call"]
    name: Name
    arguments: Unicode = Field(description="JSON text of an object.")


class FunctionCallOutputItem(Calling):
    type: Literal["function_call_output"]
    output: Annotated[list[Part], Field(max_length=MESSAGE_LIMIT, fail_fast=True)] | Unicode
    name: Text | None = None


class ReasoningItem(Item):
    """Reasoning of an earlier response, in words; neither a summary nor an encrypted text can be shown to a model."""

    type: Literal["reasoning"]
    content: Annotated[list[InputReasoningPart], Field(max_length=MESSAGE_LIMIT, fail_fast=True)] | None = None
    summary: Annotated[list[JsonObject] | None, WithJsonSchema({"type": "array", "maxItems": 0})] = None
    encrypted_content: Annotated[str | None, WithJsonSchema({"type": "null"})] = None


InputItem: TypeAlias = Annotated[
    Annotated[MessageItem, Tag("kind:message")]
    | Annotated[FunctionCallItem, Tag("kind:function_call")]
    | Annotated[FunctionCallOutputItem, Tag("kind:function_call_output")]
    | Annotated[ReasoningItem, Tag("kind:reasoning")]
    | Annotated[SkipJsonSchema[Other], Tag("kind:other")],
    _kind("message", "function_call", "function_call_output", "reasoning"),
]


class FunctionTool(Given):
    type: Literal["function"]
    name: Name
    description: Unicode | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None
    defer_loading: Annotated[bool | None, WithJsonSchema({"enum": [False, None]})] = None
    allowed_callers: Annotated[list[str] | None, WithJsonSchema({"enum": [["direct"], None]})] = None
    output_schema: Annotated[JsonObject | None, WithJsonSchema({"type": "null"})] = None


Tool: TypeAlias = Annotated[
    Annotated[FunctionTool, Tag("kind:function")] | Annotated[SkipJsonSchema[Other], Tag("kind:other")],
    _kind("function"),
]


class NamedFunction(Wire):
    type: Literal["function"]
    name: Name


class AllowedTools(Wire):
    """Only these of the tools may be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedFunction], Field(min_length=1, max_length=128, fail_fast=True)]


Chosen: TypeAlias = Annotated[
    Annotated[NamedFunction, Tag("kind:function")]
    | Annotated[AllowedTools, Tag("kind:allowed_tools")]
    | Annotated[SkipJsonSchema[Other], Tag("kind:other")],
    _kind("function", "allowed_tools"),
]
ToolMode = Literal["none", "auto", "required"]


class TextSettings(Wire):
    format: JsonObject | None = Field(None, description='`{"type": "text"}`, `json_object` or `json_schema`.')
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningSettings(Wire):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Annotated[Text | None, WithJsonSchema({"type": "null"})] = None
    generate_summary: Annotated[Text | None, WithJsonSchema({"type": "null"})] = None
    context: Annotated[Text | None, WithJsonSchema({"type": "null"})] = None
    mode: Annotated[Text | None, WithJsonSchema({"type": "null"})] = None


class StreamSettings(Wire):
    include_obfuscation: bool | None = Field(None, description="Accepted; streams are never padded here.")


Unserved = Annotated[Any, WithJsonSchema({"type": "null"})]


class CreateResponseRequest(Wire):
    """A response without a state: everything that the model is to read is in `input` and `instructions`."""

    model: Name = Field(description="A base, an alias of one, or a tuned model.")
    input: Annotated[list[InputItem], Field(min_length=1, max_length=ITEM_LIMIT, fail_fast=True)] | NonEmpty
    instructions: Unicode | None = Field(None, description="A system message before `input`.")
    include: Annotated[list[Text], Field(max_length=16, fail_fast=True)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31), Whole] | None = None
    metadata: (
        Annotated[
            dict[Annotated[Text, StringConstraints(max_length=64)], Text],
            Field(max_length=METADATA_LIMIT),
            at_most(METADATA_LIMIT),
        ]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningSettings | None = None
    store: bool | None = Field(None, description="Accepted; nothing is stored, and a header of the response says so.")
    stream: bool | None = Field(None, description="Respond with server-sent events.")
    stream_options: StreamSettings | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    text: TextSettings | None = None
    tool_choice: Chosen | ToolMode | None = None
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), Whole] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    truncation: Annotated[Literal["auto", "disabled"] | None, WithJsonSchema({"enum": ["disabled", None]})] = None

    user: Text | None = None
    safety_identifier: Annotated[Text, StringConstraints(max_length=128)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1, lt=2**31), Whole] | None = Field(
        None, description="Accepted; it counts calls of tools that OpenAI runs."
    )
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: JsonObject | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None

    background: Annotated[bool | None, WithJsonSchema({"enum": [False, None]})] = None
    previous_response_id: Unserved = None
    conversation: Unserved = None
    prompt: Unserved = None
    moderation: Unserved = None
    context_management: Unserved = None
    access_programs: Unserved = None
    image: Unserved = None
