"""Wire models of POST /v1/completions, /v1/chat/completions and /v1/embeddings: OpenAI's fields, types and ranges only;
and of POST /v1/classifications, which are vLLM's.

What a request may contain is checked here; `service.gateway.fields` decides what an engine can do with it, so a field
may be well-formed and still be refused. In a union the array comes first: its findings name the element. Models of
responses are for the OpenAPI document and validate nothing: an engine's bytes pass unchanged, and engines may add
fields of their own.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from service.api.schemas.fields import Text, Wire, at_most
from service.domain.json import JsonObject
from service.recipes.fields import Whole

PROMPT_LIMIT = 2048
MESSAGE_LIMIT = 2048
TOKEN_LIMIT = 2**20
BIAS_LIMIT = 2048
METADATA_LIMIT = 16


def _unicode(text: str) -> str:
    """Rejects half a surrogate pair: JSON can carry it, but no tokenizer or database accepts it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _half_a_pair() from None
    return text


def _half_a_pair() -> PydanticCustomError:
    return PydanticCustomError("invalid_unicode", "the text holds half a surrogate pair")


def _prompt(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """One message for every prompt that has none of the four forms."""
    try:
        return validate(value)
    except ValidationError as error:
        if any(found["type"] == "invalid_unicode" for found in error.errors(include_input=False, include_url=False)):
            raise _half_a_pair() from None
        raise PydanticCustomError(
            "prompt",
            "expected a string, an array of strings, an array of tokens or an array of token arrays, no array of "
            "them empty, and at most {limit} prompts",
            {"limit": PROMPT_LIMIT},
        ) from None


def _whole_tokens(value: Any) -> Any:
    """Tokens written as 5.0 as integers; a list of a million integers is not copied."""
    if isinstance(value, list) and any(type(token) is float for token in value):
        return [int(token) if type(token) is float and token.is_integer() else token for token in value]
    return value


Unicode = Annotated[str, AfterValidator(_unicode)]  # of any length: the body has a limit
NonEmpty = Annotated[Unicode, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Annotated[
    list[TokenId], Field(min_length=1, max_length=TOKEN_LIMIT, fail_fast=True), BeforeValidator(_whole_tokens)
]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63), Whole]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[int, Field(ge=-100, le=100), Whole]

Prompt = Annotated[
    Unicode
    | Annotated[list[Unicode], Field(min_length=1, max_length=PROMPT_LIMIT, fail_fast=True)]
    | Tokens
    | Annotated[list[Tokens], Field(min_length=1, max_length=PROMPT_LIMIT, fail_fast=True)],
    WrapValidator(_prompt),
]


def _filled(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """The same where no text may be empty."""
    if value == "" or (isinstance(value, list) and "" in value):
        raise PydanticCustomError("empty_text", "an empty text has no vector")
    return _prompt(value, validate)


Filled = Annotated[
    NonEmpty
    | Annotated[list[NonEmpty], Field(min_length=1, max_length=PROMPT_LIMIT, fail_fast=True)]
    | Tokens
    | Annotated[list[Tokens], Field(min_length=1, max_length=PROMPT_LIMIT, fail_fast=True)],
    WrapValidator(_filled),
]
Stop = Annotated[list[NonEmpty], Field(max_length=4, fail_fast=True)] | NonEmpty
ToolChoice = Literal["none", "auto", "required"] | JsonObject


class StreamOptions(Wire):
    include_usage: bool | None = Field(None, description="Send one more chunk, with the usage, before `[DONE]`.")
    include_obfuscation: bool | None = Field(None, description="Accepted; streams are never padded here.")


class EngineBody(Wire):
    """What every request for an engine has."""

    model: Annotated[Text, StringConstraints(min_length=1)] = Field(
        description="A base, an alias of one, a tuned model, or a model alias of the project's."
    )
    user: Text | None = Field(None, description="The same user gets the same of a model alias' two models.")

    @property
    def end_user(self) -> str | None:
        """Who asks, as far as the request says; only compared, never stored."""
        return self.user


class Generation(EngineBody):
    """The fields of both requests for text."""

    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[Text, Bias], Field(max_length=BIAS_LIMIT), at_most(BIAS_LIMIT)] | None = Field(
        None, description="Token ids to what is added to their logits; the embedded engine takes only an empty one."
    )
    max_tokens: Annotated[int, Field(ge=0, lt=2**31), Whole] | None = None
    n: Annotated[int, Field(ge=1, le=128), Whole] | None = Field(
        None, description="Completions per prompt; 1 by default."
    )
    seed: Int64 | None = Field(None, description="The same seed, request and environment give the same tokens.")
    stop: Stop | None = None
    stream: bool | None = Field(None, description="Respond with server-sent events, ended by `data: [DONE]`.")
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None


class CreateCompletionRequest(Generation):
    prompt: Prompt
    best_of: Annotated[int, Field(ge=0, le=20), Whole] | None = Field(None, description="Only 0 or the value of `n`.")
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5), Whole] | None = None
    suffix: Unicode | None = Field(None, description="Only empty: engines here do not insert.")


class TextPart(Wire):
    type: Literal["text"]
    text: Unicode
    prompt_cache_breakpoint: JsonObject | None = Field(None, description="Accepted; changes nothing.")


class OtherPart(BaseModel):
    """A content part of OpenAI's that no engine here can read; rejected by its index."""

    model_config = ConfigDict(extra="allow")

    type: Literal["image_url", "input_audio", "file", "refusal"]


Part = Annotated[TextPart | OtherPart, Field(discriminator="type")]
Content = Annotated[list[Part], Field(min_length=1, max_length=MESSAGE_LIMIT, fail_fast=True)] | Unicode


class FunctionCall(Wire):
    name: Annotated[Text, StringConstraints(min_length=1)]
    arguments: Unicode = Field(description="JSON text of an object.")


class ToolCall(Wire):
    id: Text
    type: Literal["function"]
    function: FunctionCall


class RequestMessage(Wire):
    """A message of any role. Fields that engines do not read may be null or empty: SDKs send responses back."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: Text | None = None
    tool_call_id: Text | None = None
    refusal: Unicode | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=128, fail_fast=True)] | None = None
    function_call: FunctionCall | None = None
    audio: JsonObject | None = None
    annotations: Annotated[list[JsonObject], Field(max_length=MESSAGE_LIMIT, fail_fast=True)] | None = None
    reasoning: Unicode | None = None
    reasoning_content: Unicode | None = None


class CreateChatCompletionRequest(Generation):
    messages: Annotated[list[RequestMessage], Field(min_length=1, max_length=MESSAGE_LIMIT, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=0, lt=2**31), Whole] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), Whole] | None = None

    metadata: (
        Annotated[
            dict[Annotated[Text, StringConstraints(max_length=64)], Text],
            Field(max_length=METADATA_LIMIT),
            at_most(METADATA_LIMIT),
        ]
        | None
    ) = None
    safety_identifier: Annotated[Text, StringConstraints(max_length=128)] | None = Field(
        None, description="As `user`, and before it."
    )
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: JsonObject | None = None
    parallel_tool_calls: bool | None = None

    audio: JsonObject | None = None
    function_call: ToolChoice | None = None
    functions: Annotated[list[JsonObject], Field(max_length=128, fail_fast=True)] | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Field(max_length=16, fail_fast=True)] | None = None
    moderation: JsonObject | None = None
    prediction: JsonObject | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    response_format: JsonObject | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    store: bool | None = None
    tool_choice: ToolChoice | None = None
    tools: Annotated[list[JsonObject], Field(max_length=128, fail_fast=True)] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: JsonObject | None = None

    @property
    def end_user(self) -> str | None:
        return self.safety_identifier or self.user


class CreateClassificationRequest(EngineBody):
    """vLLM's request: texts, tokens, or one conversation."""

    input: Prompt | None = Field(None, description="A text or several; or their tokens.")
    messages: Annotated[list[RequestMessage], Field(min_length=1, max_length=MESSAGE_LIMIT, fail_fast=True)] | None = (
        Field(None, description="A conversation instead, which the base's chat template writes.")
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "CreateClassificationRequest":
        if (self.input is None) == (self.messages is None):
            raise PydanticCustomError("one_of_both", "give either 'input' or 'messages'")
        return self


class CreateEmbeddingRequest(EngineBody):
    """OpenAI's request."""

    input: Filled = Field(description="A text or several, none of them empty; or their tokens.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="A vector as numbers, or as float32 in base64, which OpenAI's SDKs ask for and decode."
    )
    dimensions: Annotated[int, Field(ge=1), Whole] | None = Field(
        None, description="That of the model's vectors: no others are offered."
    )


class ResponsePart(BaseModel):
    model_config = ConfigDict(extra="allow")


class CompletionUsage(ResponsePart):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(ResponsePart):
    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None] | None


class CompletionChoice(ResponsePart):
    index: int
    text: str
    finish_reason: Literal["stop", "length", "content_filter"] | None
    logprobs: CompletionLogprobs | None


class Completion(ResponsePart):
    """The response to POST /v1/completions; each event of a stream has this form as well."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str | None = None
    usage: CompletionUsage | None = None


class TopLogprob(ResponsePart):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(ResponsePart):
    content: list[TokenLogprob] | None


class ResponseMessage(ResponsePart):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None


class ChatChoice(ResponsePart):
    index: int
    message: ResponseMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    logprobs: ChatLogprobs | None = None


class ChatCompletion(ResponsePart):
    """The response to POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    system_fingerprint: str | None = None
    usage: CompletionUsage | None = None


class Classified(ResponsePart):
    """One text: vLLM's `label`, `probs` and `num_classes`, and what a name or a score says."""

    index: int
    label: str | None = Field(description="The most probable label; null for a model that returns a score.")
    probs: list[float] = Field(
        description="By class, in the order of the model's labels; of a score that number alone."
    )
    num_classes: int
    scores: dict[str, float] | None = Field(None, description="The probability of each label, by its name.")
    labels: list[str] | None = Field(
        None, description="Of a model that gives any number of labels: those with a probability above 0.5."
    )
    score: float | None = Field(None, description="Of a reward model.")


class Classification(ResponsePart):
    """The response to POST /v1/classifications."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classified]
    usage: CompletionUsage


class EmbeddingUsage(ResponsePart):
    prompt_tokens: int
    total_tokens: int


class EmbeddingObject(ResponsePart):
    """The vector of one text, of length 1."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="In base64: the numbers in float32, little-endian.")


class EmbeddingList(ResponsePart):
    """The response to POST /v1/embeddings."""

    object: Literal["list"]
    model: str
    data: list[EmbeddingObject]
    usage: EmbeddingUsage
