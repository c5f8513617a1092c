"""One sequence of a request while it is generated: its row in the batch, its text, and when it ends.

Independent of the other rows of the batch and of HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workers.engines.embedded.text import TextStream
from workers.engines.embedded.vocabulary import Entry, Vocabulary
from workers.model.generate import BatchRow
from workers.model.sampling import Token

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """The next part of one choice that is final: text, its end, or both."""

    index: int
    text: str
    entries: tuple[Entry, ...] = ()
    finish_reason: FinishReason | None = None


class Choice:
    """A sequence that is being generated, `limit` tokens at most. Used by the batcher's thread, but for `wanted`."""

    def __init__(
        self, index: int, row: BatchRow, limit: int, vocabulary: Vocabulary, stops: Sequence[str] = (), echo: str = ""
    ) -> None:
        self.index = index
        self.row = row
        self.wanted = True  # False once the client has disconnected; set by the event loop, read by the thread
        self.finished = False
        self._limit = limit
        self._vocabulary = vocabulary
        self._echo = echo
        self._text = TextStream(vocabulary.tokenizer, stops, offset=len(echo))
        self._entries: list[Entry] = []  # scored; their text is still held back

    def begin(self, scores: Sequence[Token]) -> Piece | None:
        """Called when the prompt is computed; returns its echo, if requested. `scores` begin with the second token."""
        entries = self._prompt_entries(scores) if self.row.score_prompt else ()
        if self._limit == 0:
            self.finished = True
            return Piece(self.index, self._echo, entries, "length")
        return Piece(self.index, self._echo, entries) if self._echo or entries else None

    def accept(self, token: Token) -> Piece | None:
        """Takes the row's next token; returns None while no further text is final."""
        if token.id in self._vocabulary.end_tokens:
            return self._finish("", "stop")
        if token.logprob is not None:
            self._entries.append(self._vocabulary.entry(token, self._text.offset))
        text = self._text.push(token.id)
        if self._text.stopped or len(self.row.generated) >= self._limit:
            return self._finish(text, "length")
        if not text:
            return None
        entries, self._entries = self._entries, []
        return Piece(self.index, text, tuple(entries))

    def _finish(self, text: str, reason: FinishReason) -> Piece:
        self.finished = True
        text += self._text.finish()
        if self._text.stopped:
            reason = "stop"
            self._entries = [entry for entry in self._entries if entry.offset < self._text.offset]
        return Piece(self.index, text, tuple(self._entries), reason)

    def _prompt_entries(self, scores: Sequence[Token]) -> tuple[Entry, ...]:
        text = TextStream(self._vocabulary.tokenizer)
        entries = []
        first = () if self.row.written else (Token(self.row.prompt[0]),)  # which nothing precedes
        for token in (*first, *scores):
            entries.append(self._vocabulary.entry(token, text.offset))
            text.push(token.id)
        return tuple(entries)
