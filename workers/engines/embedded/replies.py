"""The responses of all endpoints as JSON, whole and in chunks, in OpenAI's shapes.

Made of pieces of text and their log-probabilities; independent of how these are generated.
"""

import base64
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import numpy as np

from service.domain.json import JsonObject
from service.domain.model import HeadConfig
from workers.engines.embedded.choice import Piece
from workers.engines.embedded.vocabulary import Entry, Spelled

Json = JsonObject


@dataclass
class WholeChoice:
    """All pieces of one choice together."""

    index: int
    text: str = ""
    entries: list[Entry] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.entries += piece.entries
        self.finish_reason = piece.finish_reason


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def classification(model: str, head: HeadConfig, values: Sequence[Sequence[float]], prompt_tokens: int) -> Json:
    """The body of POST /v1/classifications: vLLM's, with the labels' names beside the probabilities, or a score."""
    return {
        "id": f"classify-{secrets.token_hex(16)}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [_classified(index, head, row) for index, row in enumerate(values)],
        "usage": usage(prompt_tokens, 0),
    }


def _classified(index: int, head: HeadConfig, values: Sequence[float]) -> Json:
    said: Json = {"index": index, "label": None, "probs": list(values), "num_classes": len(values)}
    if head.problem_type == "regression":
        return said | {"score": values[0]}
    by_label = dict(zip(head.labels, values, strict=True))
    said |= {"label": max(by_label, key=by_label.__getitem__), "scores": by_label}
    if head.problem_type == "multi_label_classification":
        return said | {"labels": [name for name, value in by_label.items() if value > 0.5]}
    return said


def embeddings(
    model: str, vectors: Sequence[Sequence[float]], encoding: Literal["float", "base64"], prompt_tokens: int
) -> Json:
    """The body of POST /v1/embeddings: OpenAI's. In base64 a vector is its numbers in float32, little-endian."""
    encoded = [_base64(vector) for vector in vectors] if encoding == "base64" else vectors
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(encoded)],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()


class Reply(Protocol):
    """How one endpoint formats what was generated."""

    def whole(self, choices: Sequence[WholeChoice], usage: Json) -> Json:
        """The body of a response that is not streamed."""
        ...

    def opening(self, index: int) -> Json | None:
        """The chunk before a choice's first piece, if there is one."""
        ...

    def chunks(self, piece: Piece) -> Sequence[Json]:
        """A piece as one or more chunks."""
        ...

    def closing(self, usage: Json) -> Json:
        """The chunk with the usage, after all choices."""
        ...


class _Reply:
    prefix: ClassVar[str]
    object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, model: str, *, scored: bool) -> None:
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(16)}", "created": int(time.time()), "model": model}
        self._scored = scored

    def closing(self, usage: Json) -> Json:
        return {**self._head, "object": self.chunk_object, "choices": [], "usage": usage}

    def _whole(self, choices: Sequence[Json], usage: Json) -> Json:
        return {**self._head, "object": self.object, "choices": choices, "usage": usage}

    def _chunk(self, choice: Json) -> Json:
        return {**self._head, "object": self.chunk_object, "choices": [choice]}


class CompletionReply(_Reply):
    """/v1/completions."""

    prefix = "cmpl"
    object = chunk_object = "text_completion"

    def whole(self, choices: Sequence[WholeChoice], usage: Json) -> Json:
        return self._whole([self._choice(choice) for choice in choices], usage)

    def opening(self, index: int) -> Json | None:
        return None

    def chunks(self, piece: Piece) -> Sequence[Json]:
        return [self._chunk(self._choice(piece))]

    def _choice(self, part: WholeChoice | Piece) -> Json:
        return {
            "index": part.index,
            "text": part.text,
            "logprobs": _completion_logprobs(part.entries) if self._scored else None,
            "finish_reason": part.finish_reason,
        }


class ChatReply(_Reply):
    """/v1/chat/completions."""

    prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def whole(self, choices: Sequence[WholeChoice], usage: Json) -> Json:
        bodies = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": self._logprobs(choice.entries),
                "finish_reason": choice.finish_reason,
            }
            for choice in choices
        ]
        return self._whole(bodies, usage)

    def opening(self, index: int) -> Json | None:
        return self._delta(index, {"role": "assistant", "content": "", "refusal": None})

    def chunks(self, piece: Piece) -> Sequence[Json]:
        said = bool(piece.text or piece.entries)
        chunks = [self._delta(piece.index, {"content": piece.text}, self._logprobs(piece.entries))] if said else []
        if piece.finish_reason:
            chunks.append(self._delta(piece.index, {}, finish_reason=piece.finish_reason))
        return chunks

    def _delta(self, index: int, delta: Json, logprobs: Json | None = None, finish_reason: str | None = None) -> Json:
        return self._chunk({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason})

    def _logprobs(self, entries: Sequence[Entry]) -> Json | None:
        if not self._scored:
            return None
        content = [
            {**_spelled(entry), "top_logprobs": [_spelled(spelled) for spelled in entry.top]} for entry in entries
        ]
        return {"content": content, "refusal": None}


def _spelled(token: Entry | Spelled) -> Json:
    return {"token": token.text, "logprob": token.logprob, "bytes": token.bytes}


def _completion_logprobs(entries: Sequence[Entry]) -> Json:
    """The legacy shape: parallel lists. A token's alternatives hold the token itself, too."""
    return {
        "text_offset": [entry.offset for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "tokens": [entry.text for entry in entries],
        "top_logprobs": [_alternatives(entry) for entry in entries],
    }


def _alternatives(entry: Entry) -> dict[str, float] | None:
    if entry.logprob is None:
        return None
    alternatives: dict[str, float] = {}
    for spelled in entry.top:
        alternatives.setdefault(spelled.text, spelled.logprob)  # of two tokens with the same text, the likelier one
    alternatives.setdefault(entry.text, entry.logprob)
    return alternatives
