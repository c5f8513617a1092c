"""Texts cut where a tokenizer cuts them itself, so that each distinct unit is encoded once in a whole file.

What repeats in a file is mostly smaller than a text: a system prompt that all rows begin with, a word. Two rules say
where a text may be cut, each read from the tokenizer's own settings; a tokenizer for which neither holds gets whole
texts. Both are exact: the units' tokens, one after another, are those of the whole text.

- Before a token that the tokenizer looks for in the text as it is written. It cuts the text at these before anything
  else, and normalizes what is between them piece by piece.
- Before a space that follows other text, where the tokenizer cuts the text into words by patterns of which none
  continues behind a word into a space or looks at what is before the word, as those of GPT-2, GPT-4, Llama 3 and Qwen.

Does not depend on rows; `workers.data.encodings` asks.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from tokenizers import AddedToken, Tokenizer, models

from service.domain.json import JsonObject
from workers.data.base_text import BaseText

UNITS_BYTES = 8 * 1024 * 1024  # of each of two generations, of first units and of later ones
_ENTRY_BYTES, _TOKEN_BYTES = 250, 40  # of a dictionary's entry with its list and text, and of a number in the list

# The expressions by which tokenizers find words, each with these properties: where a match has anything but space, it
# has no space behind that; it looks at nothing before itself; and behind itself only `\s+(?!\S)` looks, at one letter
# after space. So a match that begins before a space which follows other text ends before it, and no match changes when
# the text is cut there.
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ANY_SPACE = r"\s+"  # with it among them, a match begins at every space that no other match has
_WORDS = frozenset(
    {
        *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", _SUFFIX),
        *(r" ?\p{L}+", r"[^\r\n\p{L}\p{N}]?\p{L}+"),
        *(rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{suffix}" for suffix in ("", _SUFFIX + "?")),
        *(rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{suffix}" for suffix in ("", _SUFFIX + "?")),
        *(r" ?\p{N}+", r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"),
        *(rf" ?[^\s\p{{L}}\p{{N}}]+{ends}" for ends in ("", r"[\r\n]*", r"[\r\n/]*")),
        *(r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", _ANY_SPACE),
    }
)
_SPACE = re.compile(r" (?<=\S )")  # Python's space is all that the tokenizers' expressions call so, and more


@dataclass(frozen=True)
class Cuts:
    """Where one tokenizer's texts may be cut. `tokens` has one group and matches those to cut before; None: nowhere."""

    tokens: re.Pattern[str] | None
    words: bool  # also before a space that follows other text

    @classmethod
    def of(cls, rust: Tokenizer) -> "Cuts":
        added = list(rust.get_added_tokens_decoder().values())
        if rust.encode_special_tokens or not all(map(_plain, added)) or _random(rust.model):
            return cls(None, words=False)
        as_written = sorted((token.content for token in added if not token.normalized), key=len, reverse=True)
        across = any(re.search(r"\S\s", token.content) for token in added)
        words = not across and _keeps_spaces(_state(rust.normalizer)) and _cuts_words(_state(rust.pre_tokenizer))
        tokens = re.compile(f"({'|'.join(map(re.escape, as_written))})") if as_written else None
        return cls(tokens, words)

    def segments(self, text: str) -> list[str]:
        """The text, cut before each of `tokens`."""
        if self.tokens is None:
            return [text]
        before, *rest = self.tokens.split(text)
        segments = list(map(str.__add__, rest[::2], rest[1::2]))
        return [before, *segments] if before or not segments else segments


class Units:
    """What one pass over a file knows of the units of its texts. For one thread at a time."""

    def __init__(self, text: BaseText, limit_bytes: int = UNITS_BYTES) -> None:
        self._text = text
        self._first = _Known(limit_bytes)  # of a segment, up to its first cut
        self._after_space = _Known(limit_bytes)  # without the space that they begin with

    def batch_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """As `BaseText.batch_ids` without tokens that the tokenizer adds: one call for what is not known yet."""
        if not (self._cuts.words or self._cuts.tokens):
            return self._text.batch_ids(texts, add_special_tokens=False)
        segments = [self._cuts.segments(text) for text in texts]
        words_of = {segment: self._words(segment) for segment in set(chain.from_iterable(segments))}
        first = self._first.missing({words[0] for words in words_of.values()})
        later = self._after_space.missing(set(chain.from_iterable(words[1:] for words in words_of.values())))
        new = [*first, *(" " + unit for unit in later)]
        found = self._text.batch_ids(new, add_special_tokens=False) if new else []
        self._first.learn(first, found[: len(first)])
        self._after_space.learn(later, found[len(first) :])
        ids_of = {segment: self._joined(words) for segment, words in words_of.items()}
        return [list(chain.from_iterable(map(ids_of.__getitem__, each))) for each in segments]

    @cached_property
    def _cuts(self) -> Cuts:
        rust = self._text.rust
        return Cuts(None, words=False) if rust is None else Cuts.of(rust)

    @property
    def num_known(self) -> int:
        return len(self._first) + len(self._after_space)

    def _words(self, segment: str) -> list[str]:
        return _SPACE.split(segment) if self._cuts.words else [segment]

    def _joined(self, words: list[str]) -> list[int]:
        after_space = self._after_space.ids
        ids = list(self._first.ids[words[0]])
        for word in words[1:]:
            ids += after_space[word]
        return ids


class _Known:
    """The tokens of units, at most two generations of them: what the newer one lacks and the older one has moves over.
    So the units that were asked for last are kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.ids: dict[str, tuple[int, ...]] = {}  # tuples, which the garbage collector need not visit again and again
        self._older: dict[str, tuple[int, ...]] = {}
        self._limit_bytes = limit_bytes
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self.ids) + len(self._older)

    def missing(self, units: set[str]) -> list[str]:
        """Those of `units` that are not known. All others are in `ids` until the next call."""
        if self._num_bytes > self._limit_bytes:
            self._older, self.ids, self._num_bytes = self.ids, {}, 0
        missing = []
        for unit in units.difference(self.ids):
            if (ids := self._older.get(unit)) is None:
                missing.append(unit)
            else:
                self._add(unit, ids)
        return missing

    def learn(self, units: Iterable[str], found: Iterable[list[int]]) -> None:
        for unit, ids in zip(units, found, strict=True):
            self._add(unit, tuple(ids))

    def _add(self, unit: str, ids: tuple[int, ...]) -> None:
        self.ids[unit] = ids
        self._num_bytes += _ENTRY_BYTES + len(unit) + _TOKEN_BYTES * len(ids)


def _plain(token: AddedToken) -> bool:
    """Whether it is found wherever it is written, and takes no space beside it."""
    return not (token.lstrip or token.rstrip or token.single_word)


def _random(model: models.Model) -> bool:
    return isinstance(model, models.BPE) and bool(model.dropout)


def _state(part: object) -> JsonObject:
    """The settings of a part of a tokenizer, as in tokenizer.json."""
    if part is None:
        return {"type": "Sequence", "normalizers": [], "pretokenizers": []}
    written = part.__getstate__()  # every part in Rust writes itself as JSON
    assert isinstance(written, bytes)
    state: JsonObject = json.loads(written)
    return state


def _keeps_spaces(normalizer: JsonObject) -> bool:
    """Whether what follows a space does not change what is before it, nor the other way round."""
    if normalizer["type"] == "Sequence":
        return all(map(_keeps_spaces, normalizer["normalizers"]))
    return bool(normalizer["type"] == "NFC")  # a space composes with nothing


def _cuts_words(pre_tokenizer: JsonObject) -> bool:
    """Whether words are found as described above, and a space always begins one."""
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return False
    cuts = bool(steps[-1]["use_regex"])  # GPT-2's expression
    for step in steps[:-1]:
        if step["type"] == "Digits":
            continue
        if step["type"] != "Split" or step["behavior"] != "Isolated" or step["invert"]:
            return False
        alternatives = set(_alternatives(step["pattern"].get("Regex", "")))
        if not alternatives <= _WORDS:
            return False
        cuts = cuts or _ANY_SPACE in alternatives
    return cuts


def _alternatives(expression: str) -> list[str]:
    """Those of the outermost level, as far as parentheses and brackets are not escaped."""
    found, depth, begun = [], 0, 0
    for place, letter in enumerate(expression):
        depth += (letter in "([") - (letter in ")]")
        if letter == "|" and not depth:
            found.append(expression[begun:place])
            begun = place + 1
    return [*found, expression[begun:]]
