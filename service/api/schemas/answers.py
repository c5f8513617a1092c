"""Wire models of the answers of POST /v1/completions and /v1/chat/completions, for the OpenAPI document.

They validate nothing: an engine's bytes pass unchanged, and engines may add fields of their own.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Answered(BaseModel):
    model_config = ConfigDict(extra="allow")


class CompletionUsage(Answered):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(Answered):
    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None] | None


class CompletionChoice(Answered):
    index: int
    text: str
    finish_reason: Literal["stop", "length", "content_filter"] | None
    logprobs: CompletionLogprobs | None


class Completion(Answered):
    """The answer to POST /v1/completions; each event of a stream has this form as well."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str | None = None
    usage: CompletionUsage | None = None


class TopLogprob(Answered):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answered):
    content: list[TokenLogprob] | None


class ChatAnswer(Answered):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None


class ChatChoice(Answered):
    index: int
    message: ChatAnswer
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Answered):
    """The answer to POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    system_fingerprint: str | None = None
    usage: CompletionUsage | None = None
