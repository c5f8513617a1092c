"""Where prompt and answer meet, as tokens: the prompt's are what an engine feeds, whatever follows them.

Knows tokens and text; does not depend on rows or templates.
"""

from collections.abc import Iterator

from workers.data.base_text import BaseText
from workers.data.messages import RenderError

# Texts behind which the beginning of an answer is tokenised alone: a tokenizer that puts a space before whatever it is
# given puts it before these.
_ANCHORS = ("\n", "a", "0", ".", ")", "\u00e9")


class Encoder:
    """Encodes texts that mostly begin with the last one, without tokenising that part again.

    A tokenizer cuts text at special tokens before it does anything else, so what stands left of one never depends on
    what stands right of it.
    """

    def __init__(self, text: BaseText) -> None:
        self._base = text
        self._text = ""
        self._ids: list[int] = []
        self._cut = (0, 0)  # character and token where the last special token stands

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`. Raises UnknownToken."""
        start, kept = self._cut if text.startswith(self._text) else (0, 0)
        ids = self._ids[:kept] + self._base.ids(text[start:], add_special_tokens=False)
        self._text, self._ids, self._cut = text, ids, (start, kept)
        if specials := list(self._base.special.finditer(text, start)):
            special_id = self._base.special_id(specials[-1][0])
            self._cut = specials[-1].start(), len(ids) - 1 - ids[::-1].index(special_id)
        return ids


def joined(base: BaseText, prompt: list[int], both: list[int], answer: str, special: str) -> list[int]:
    """Ids that begin with exactly `prompt` and continue with `answer`.

    `both` (prompt and answer tokenised as one text) where no token crosses the boundary; else the answer is tokenised
    by itself: behind `special`, so that no tokenizer takes it for the beginning of a text, or, where the tokenizer puts
    a space there, too, behind some letter that stays a token of its own. Raises RenderError where nothing reads the
    same.
    """
    if both[: len(prompt)] == prompt:
        return both
    whole = base.tokenizer.decode(both)
    for ids in _alone(base, answer, special):
        if base.tokenizer.decode(prompt + ids) == whole:
            return prompt + ids
    raise RenderError("", "the base's tokenizer cannot keep prompt and answer apart in this example")


def _alone(base: BaseText, answer: str, special: str) -> Iterator[list[int]]:
    yield base.ids(special + answer, add_special_tokens=False)[1:]
    for anchor in _ANCHORS:
        encoding = base.tokenizer(anchor + answer, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [end for _, end in encoding["offset_mapping"]]
        if len(anchor) in ends:  # no token crosses it
            first = len(ends) - ends[::-1].index(len(anchor))
            ids = list(encoding["input_ids"])[first:]
            base.check(ids)
            yield ids
