"""What a base knows of text: its tokenizer, the tokens that its own settings end an answer with, and how many tokens
its weights know.

Knows no rows and no tensors: `workers.model.load` makes one, training and the embedded engine read the same.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

LETTERS_SHOWN = 60  # of a token in a message


class UnknownToken(Exception):
    """A token lies beyond the embedding: the tokenizer has it, the weights do not."""

    def __init__(self, id: int, token: str, num_embeddings: int) -> None:
        super().__init__(
            f"holds {token[:LETTERS_SHOWN]!r}, which is the token {id} of the base's tokenizer; "
            f"its weights know only tokens below {num_embeddings}"
        )
        self.token = token


@dataclass(frozen=True)
class BaseText:
    """`end_ids`: what generation_config.json ends an answer with; `num_embeddings`: rows of the input embedding."""

    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int] = frozenset()
    num_embeddings: int = sys.maxsize

    @cached_property
    def end_tokens(self) -> frozenset[str]:
        """What the base's own settings end an answer with, its end-of-text token included."""
        known = {id: token.content for id, token in self.tokenizer.added_tokens_decoder.items()}
        named = {known[id] for id in self.end_ids if id in known}
        eos = self.tokenizer.eos_token
        return frozenset(named | ({eos} if isinstance(eos, str) else set()))

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Matches every special token and every end of an answer; without any, nothing."""
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        tokens = sorted(added | set(self.tokenizer.all_special_tokens) | self.end_tokens, key=len, reverse=True)
        return re.compile("|".join(re.escape(token) for token in tokens) or r"(?!)")

    @cached_property
    def unknown_ids(self) -> tuple[int, ...]:
        """The tokenizer's tokens that the weights do not know, in order."""
        return tuple(sorted(id for id in self.tokenizer.get_vocab().values() if id >= self.num_embeddings))

    def ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The tokens of `text`. Raises UnknownToken where one lies beyond the embedding."""
        ids = list(self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
        self.check(ids)
        return ids

    def check(self, ids: Sequence[int]) -> None:
        """Raises UnknownToken where one of `ids` lies beyond the embedding."""
        highest = max(ids, default=0)
        if highest >= self.num_embeddings:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise UnknownToken(highest, str(token), self.num_embeddings)

    def special_id(self, token: str) -> int:
        """The one token that `token`, a special one, is."""
        (id,) = self.ids(token, add_special_tokens=False)
        return id
