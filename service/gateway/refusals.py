"""What an engine's error means to the client, in our words.

Knows the two shapes that engines answer with: OpenAI's envelope, where vLLM puts the HTTP status into `code`, and
anything else, which is the engine's failure. By now the database has said that the model exists and may be used.
"""

from typing import Any

import orjson

from service.domain.errors import InvalidRequest, LuthierError, RateLimited, Unavailable
from service.domain.json import JsonObject

CLIENTS_FAULT = frozenset({400, 413, 422})
CONTEXT_LENGTH = "This model's maximum context length"
NOT_LOADED = "was found but could not be loaded"  # vLLM's 400 for an adapter: nothing that the client sent is wrong
INTERNAL = frozenset({"input_tokens"})  # what vLLM calls things that no client sent


def refused(status: int, answer: bytes, model: str) -> LuthierError:
    """The error for an engine's answer that is not 200."""
    try:
        envelope = orjson.loads(answer)
    except orjson.JSONDecodeError:
        envelope = None
    error = envelope.get("error") if isinstance(envelope, dict) else None
    return in_our_words(status, error if isinstance(error, dict) else {}, model)


def broken_off(error: JsonObject, model: str) -> LuthierError:
    """The error for an error event in the middle of a stream; vLLM keeps its status in `code`."""
    status = error.get("code")
    return in_our_words(status if isinstance(status, int) else 500, error, model)


def in_our_words(status: int, error: JsonObject, model: str) -> LuthierError:
    """Only what the client can change keeps the engine's message; the rest is a reason to try again."""
    message = error.get("message")
    if status == 404:
        return Unavailable(f"The model '{model}' exists, but its engine does not hold it right now. Please try again.")
    if status == 429:
        return RateLimited("The engine has too many requests at the moment. Please try again later.")
    if status in CLIENTS_FAULT and isinstance(message, str) and NOT_LOADED not in message:
        param = _text(error.get("param"))
        return InvalidRequest(
            message, param=None if param in INTERNAL else param, code=_code(error.get("code"), message)
        )
    return Unavailable("The engine could not answer. Please try again.")


def _code(code: Any, message: str) -> str | None:
    if message.startswith(CONTEXT_LENGTH):
        return "context_length_exceeded"
    return _text(code)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
