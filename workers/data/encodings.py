"""Texts as tokens: those of many rows in one call, and those of a conversation without encoding a beginning twice.

What an `Encoder` asks for depends on texts alone (`encoded_for`), so it is known before any token is. What was not
foreseen is encoded when it is asked for. Does not depend on rows.
"""

from collections.abc import Iterable, Iterator

from workers.data.base_text import BaseText
from workers.data.units import Units

Asked = tuple[str, bool]  # a text to be encoded, and whether with the tokens that a tokenizer adds by itself


class Encodings:
    """The tokens of texts; those of `asked` are encoded together, each once, and known before they are asked for.

    `units` is what is known of other texts' units; without one, every text is encoded as a whole.
    """

    def __init__(self, text: BaseText, asked: Iterable[Asked] = (), units: Units | None = None) -> None:
        self.base = text
        self._known: dict[Asked, list[int]] = {}
        distinct = set(asked)
        for special in (False, True):
            texts = [each for each, add_special_tokens in distinct if add_special_tokens == special]
            if not texts:
                continue
            if units is None or special:
                found = text.batch_ids(texts, add_special_tokens=special)
            else:
                found = units.batch_ids(texts)
            self._known |= {(each, special): ids for each, ids in zip(texts, found, strict=True)}

    def ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The tokens of `text`, which other callers may get too: not to be changed. Raises UnknownToken."""
        known = self._known.get((text, add_special_tokens))
        if known is None:
            return self.base.ids(text, add_special_tokens=add_special_tokens)
        self.base.check(known)
        return known


class Encoder:
    """Encodes texts each of which mostly begins with the one before, without tokenising that part again.

    A tokenizer splits text at special tokens before anything else, so the tokens before one never depend on the text
    after it.
    """

    def __init__(self, encodings: Encodings) -> None:
        self._encodings = encodings
        self._base = encodings.base
        self._text = ""
        self._ids: list[int] = []
        self._cut = (0, 0)  # character and token index of the last special token

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`. Raises UnknownToken."""
        start, kept = self._cut if text.startswith(self._text) else (0, 0)
        new = self._encodings.ids(text[start:], add_special_tokens=False)
        ids = self._ids[:kept] + new
        self._text, self._ids, self._cut = text, ids, (start, kept)
        if specials := list(self._base.special.finditer(text, start)):
            special_id = self._base.special_id(specials[-1][0])
            self._cut = specials[-1].start(), len(ids) - 1 - new[::-1].index(special_id)
        return ids


def encoded_for(text: BaseText, wholes: Iterable[str]) -> Iterator[Asked]:
    """What an `Encoder` encodes for these texts."""
    known, start = "", 0
    for whole in wholes:
        start = start if whole.startswith(known) else 0
        yield whole[start:], False
        known = whole
        if specials := list(text.special.finditer(whole, start)):
            start = specials[-1].start()
