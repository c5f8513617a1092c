"""The requests that the engine understands: the part of vLLM's OpenAI-like dialect that the gateway sends.

Has no tokens. A field that is not listed here is an error that names it, never ignored; null is the same as a missing
field.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from service.domain.errors import InvalidRequest
from service.domain.json import JsonObject
from workers.model.sampling import Sampling

CHOICES_LIMIT = 128  # of one request: n times its prompts
INPUTS_LIMIT = 2048  # texts of one request; of a completion fewer, by CHOICES_LIMIT
CHAT_ROLES = Literal["developer", "system", "user", "assistant", "tool", "function"]

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
StopText = Annotated[str, Field(min_length=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Inputs = Annotated[list[str] | list[TokenIds], Field(min_length=1, max_length=INPUTS_LIMIT)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {name: field for name, field in value.items() if field is not None} if isinstance(value, dict) else value


class StreamOptions(_Wire):
    include_usage: bool = False


class _Request(_Wire):
    """What both endpoints have. `user` is accepted and has no effect."""

    model: str
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    seed: Seed | None = None
    n: int = Field(1, ge=1, le=CHOICES_LIMIT)
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str = ""

    @model_validator(mode="after")
    def _options_only_when_streaming(self) -> "_Request":
        if self.stream_options and not self.stream:
            raise refused("stream_options", "is only allowed when 'stream' is enabled")
        return self

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, index: int) -> Sampling:
        """For the choice `index`: each has a seed of its own."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=None if self.seed is None else self.seed + index,
        )


class CompletionRequest(_Request):
    """POST /v1/completions. `written` is for workers, which ask what a model on an encoder-decoder says of an answer:
    the tokens that its decoder has written before; with `echo`, `logprobs` scores these."""

    prompt: str | TokenIds | Inputs
    written: TokenIds | None = None
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool = False

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as tokens."""
        return _each(self.prompt)


class FunctionCall(_Wire):
    name: str
    arguments: str = ""


class ToolCall(_Wire):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(BaseModel):
    """One message. The base's chat template gets it as it was sent, names and further keys included."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    role: CHAT_ROLES
    content: str | list[JsonObject] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None


class ChatRequest(_Request):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2048)]
    max_tokens: int | None = Field(None, ge=0)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)

    @model_validator(mode="after")
    def _fitting_together(self) -> "ChatRequest":
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise refused("max_tokens", "cannot be set together with 'max_completion_tokens'")
        if self.top_logprobs is not None and not self.logprobs:
            raise refused("top_logprobs", "needs 'logprobs' to be true")
        return self

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_top(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class ClassificationRequest(_Wire):
    """POST /v1/classifications. `user` is accepted and has no effect."""

    model: str
    input: str | TokenIds | Inputs | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2048)] | None = None
    user: str = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> "ClassificationRequest":
        if (self.input is None) == (self.messages is None):
            raise refused("input", "or 'messages' must be given, and not both")
        return self

    @property
    def inputs(self) -> list[str | list[int]]:
        """Each text, as text or as tokens; none for a conversation."""
        return _each(self.input) if self.input is not None else []


class EmbeddingRequest(_Wire):
    """POST /v1/embeddings. `user` is accepted and has no effect."""

    model: str
    input: str | TokenIds | Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str = ""

    @property
    def inputs(self) -> list[str | list[int]]:
        """Each text, as text or as tokens."""
        return _each(self.input)


def _each(given: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    tokens = [item for item in given if isinstance(item, int)]
    return [tokens] if tokens else [item for item in given if not isinstance(item, int)]


def refused(param: str, reason: str) -> PydanticCustomError:
    """An error that a single field's type cannot express."""
    return PydanticCustomError("refused", "'{param}' {reason}.", {"param": param, "reason": reason})


def _param(finding: ErrorDetails) -> str | None:
    places = [place for place in finding["loc"] if place != "body"]
    return str(finding.get("ctx", {}).get("param") or (places[0] if places else "")) or None


def explain(error: RequestValidationError) -> InvalidRequest:
    """The first mistake in OpenAI's words; where a field has several forms, of the form that was meant."""
    findings: Sequence[ErrorDetails] = error.errors()
    param = _param(findings[0])
    same = [finding for finding in findings if _param(finding) == param]
    first = next((finding for finding in same if not finding["type"].endswith("_type")), findings[0])
    match first["type"]:
        case "json_invalid" | "model_attributes_type" | "model_type":
            return InvalidRequest("The body of your request is not a JSON object.")
        case "missing" if param is None:
            return InvalidRequest("The body of your request is empty.")
        case "missing":
            return InvalidRequest(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            )
        case "extra_forbidden":
            return InvalidRequest(f"Unsupported parameter: '{param}'.", param=param, code="unsupported_parameter")
        case "refused":
            return InvalidRequest(first["msg"], param=param)
    return InvalidRequest(f"Invalid value for '{param}': {first['msg']}.", param=param, code="invalid_value")
