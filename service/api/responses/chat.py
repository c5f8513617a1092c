"""What is read of an engine's chat completion, whole or in chunks: text, reasoning, calls, why it ended, usage.

Engines may add fields, which are not read. What has not even these is unreadable and becomes Unavailable: nothing that
an engine says may be lost without an error.
"""

from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from service.domain.errors import Unavailable

UNREADABLE = "The engine's response cannot be read. Please try again."

Read = TypeVar("Read", bound=BaseModel)


class CalledFunction(BaseModel):
    name: str | None = None
    arguments: str | None = None


class Call(BaseModel):
    """A call, or a fragment of one: the first has the name."""

    index: int | None = None  # in chunks
    id: str | None = None
    function: CalledFunction = CalledFunction()


class Said(BaseModel):
    """A message, or what a chunk adds to it."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class Logprob(BaseModel):
    token: str
    bytes: list[int] | None = None
    logprob: float


class TokenLogprob(Logprob):
    top_logprobs: list[Logprob] = []


class Logprobs(BaseModel):
    content: list[TokenLogprob] | None = None


class Details(BaseModel):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class TokenUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class Choice(BaseModel):
    """The only one that is ever asked for."""

    delta: Said
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class WholeChoice(BaseModel):
    message: Said
    finish_reason: str
    logprobs: Logprobs | None = None


class Chunk(BaseModel):
    choices: list[Choice] = Field(max_length=1)
    usage: TokenUsage | None = None


class ChatCompletion(BaseModel):
    created: int
    choices: list[WholeChoice] = Field(min_length=1, max_length=1)
    usage: TokenUsage | None = None


def completion(body: bytes) -> ChatCompletion:
    """Raises Unavailable."""
    return _read(ChatCompletion, body)


def chunks(events: bytes) -> Iterator[Chunk]:
    """The chunks of whole server-sent events; comments and `[DONE]` are none. Raises Unavailable."""
    for line in events.splitlines():
        if line.startswith(b"data:") and (data := line[len(b"data:") :].strip()) != b"[DONE]":
            yield _read(Chunk, data)


def _read(kind: type[Read], data: bytes) -> Read:
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        raise Unavailable(UNREADABLE) from None  # what was found quotes the user's text
