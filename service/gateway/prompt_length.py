"""Prompts that cannot fit into a base's context are refused by their length, before any engine tokenises them.

A tokenizer reads a text to its end before anybody can count its tokens: 15 MB took 89 s and 4.4 GB. No text of this
world has more than BYTES_PER_TOKEN bytes per token on average over a whole context (English has 4 to 5; a token of more
is a long run of one character), so more bytes than that are too many tokens whatever they are. Works on the fields of a
request; called before `fields` allows them, so that it holds for every engine.
"""

from collections.abc import Mapping
from typing import Any

from service.domain.errors import InvalidRequest

BYTES_PER_TOKEN = 32
PROMPTS = ("prompt", "input")  # fields with one text, or several
SEQUENCES_LIMIT = 2048  # of one request: `n` times its prompts


def check_length(fields: Mapping[str, Any], context_tokens: int) -> None:
    """Raises InvalidRequest for a prompt, or for other text, that is longer than the whole context can be."""
    prompts = prompts_of(fields)
    for prompt in prompts:
        if isinstance(prompt, list):
            _check_tokens("input" if "input" in fields else "prompt", len(prompt), context_tokens)
        else:
            _check_bytes("input" if "input" in fields else "prompt", text_bytes(prompt), context_tokens)
    for name, value in fields.items():
        if name not in PROMPTS:
            _check_bytes(name, text_bytes(value), context_tokens)
    if sequences(fields) > SEQUENCES_LIMIT:
        raise InvalidRequest(
            f"'n' times the number of prompts may be at most {SEQUENCES_LIMIT}, but is {sequences(fields)}. "
            "Please send several requests.",
            param="n",
            code="invalid_value",
        )


def sequences(fields: Mapping[str, Any]) -> int:
    """How many completions a request asks for: `n` of every prompt."""
    return max(1, len(prompts_of(fields))) * int(fields.get("n") or 1)


def prompts_of(fields: Mapping[str, Any]) -> list[Any]:
    """Each prompt of a completion, or input of another request, as text or as tokens; none for a chat."""
    prompt = fields.get("prompt", fields.get("input", []))
    if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
        return [prompt]
    return list(prompt)


def text_bytes(value: Any) -> int:
    """The bytes, in UTF-8, of all text within `value`."""
    match value:
        case str():
            return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        case list():
            return sum(text_bytes(item) for item in value)
        case dict():
            return sum(text_bytes(name) + text_bytes(item) for name, item in value.items())
        case _:
            return 0


def _check_bytes(name: str, size: int, context_tokens: int) -> None:
    limit = context_tokens * BYTES_PER_TOKEN
    if size > limit:
        raise InvalidRequest(
            f"This model's maximum context length is {context_tokens} tokens, which no text of more than {limit:,} "
            f"bytes fits into. However, '{name}' has {size:,} bytes. Please reduce its length.",
            param=name,
            code="context_length_exceeded",
        )


def _check_tokens(name: str, count: int, context_tokens: int) -> None:
    if count > context_tokens:
        what = {"prompt": "a prompt", "input": "an input"}[name]
        raise InvalidRequest(
            f"This model's maximum context length is {context_tokens} tokens. However, {what} has {count:,} tokens. "
            f"Please reduce the length of the {name}.",
            param=name,
            code="context_length_exceeded",
        )
