"""From tokens to text as they come: no broken UTF-8, no special token, nothing of a stop text.

Has no requests and no tensors. One `TextStream` per generated sequence.
"""

from collections.abc import Sequence

from tokenizers import Tokenizer

BROKEN = "\ufffd"  # how a decoder shows bytes that are no text, or not yet


class TextStream:
    """The text of one sequence. `push` and `finish` return text that is final and was not returned before."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), offset: int = 0) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._ids: list[int] = []
        self._shown = 0  # so many of `_ids` are in the text already; they stay because some decoders look back
        self._held = ""  # decoded, but a stop text may begin in it
        self._offset = offset
        self.stopped = False

    @property
    def offset(self) -> int:
        """Where in the text the next token begins."""
        return self._offset + len(self._held)

    def push(self, token: int) -> str:
        """Takes the next token. Sets `stopped` when it completes a stop text; nothing may be pushed after that."""
        self._ids.append(token)
        text = self._decode()
        if text.endswith(BROKEN):
            return ""  # the next token may bring the rest of a character
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return self._release(text)

    def finish(self) -> str:
        """The rest: no token follows."""
        text = "" if self.stopped else self._release(self._decode())
        rest, self._held = self._held, ""
        self._offset += len(rest)
        return text + rest

    def _decode(self) -> str:
        """The text of the tokens that are not shown yet, decoded behind those shown last."""
        before = self._tokenizer.decode(self._ids[: self._shown], skip_special_tokens=True)
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        return text[len(before) :]

    def _release(self, text: str) -> str:
        self._held += text
        cut = min((place for stop in self._stops if (place := self._held.find(stop)) >= 0), default=None)
        self.stopped = cut is not None
        keep = len(self._held) - self._doubtful() if cut is None else cut
        certain = self._held[:keep]
        self._held = "" if self.stopped else self._held[keep:]
        self._offset += len(certain)
        return certain

    def _doubtful(self) -> int:
        """The length of the longest end of the held text with which a stop text begins."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        sizes = range(min(longest, len(self._held)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(self._held[-size:]) for stop in self._stops)), 0)
