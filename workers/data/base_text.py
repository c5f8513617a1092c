"""The text side of a base: its tokenizer, the tokens that end an answer by its own settings, and how many tokens its
weights have embeddings for.

Does not depend on rows or tensors. `workers.model.load` creates it; training and the embedded engine share it.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, TokenizersBackend

LETTERS_SHOWN = 60  # of a token in an error message


class UnknownToken(Exception):
    """A token of the tokenizer for which the weights have no embedding."""

    def __init__(self, id: int, token: str, num_embeddings: int) -> None:
        super().__init__(
            f"contains {token[:LETTERS_SHOWN]!r}, token {id} of the base's tokenizer, but the base's weights have "
            f"embeddings only for tokens below {num_embeddings}; remove this text"
        )
        self.token = token


@dataclass(frozen=True)
class BaseText:
    """`end_ids`: the end tokens in generation_config.json; `num_embeddings`: rows of the input embedding.

    `decoder_start_id`: of an encoder-decoder, the token with which its decoder begins; None for any other base.
    """

    tokenizer: PreTrainedTokenizerBase
    end_ids: frozenset[int] = frozenset()
    num_embeddings: int = sys.maxsize
    decoder_start_id: int | None = None

    @cached_property
    def end_tokens(self) -> frozenset[str]:
        """The tokens that end an answer by the base's own settings, including its end-of-text token."""
        known = {id: token.content for id, token in self.tokenizer.added_tokens_decoder.items()}
        named = {known[id] for id in self.end_ids if id in known}
        eos = self.tokenizer.eos_token
        return frozenset(named | ({eos} if isinstance(eos, str) else set()))

    @cached_property
    def special(self) -> re.Pattern[str]:
        """Matches every special token and every token that ends an answer; matches nothing if there are none."""
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        tokens = sorted(added | set(self.tokenizer.all_special_tokens) | self.end_tokens, key=len, reverse=True)
        return re.compile("|".join(re.escape(token) for token in tokens) or r"(?!)")

    @cached_property
    def unknown_ids(self) -> tuple[int, ...]:
        """The ids of the tokenizer's tokens that have no embedding, in rising order."""
        return tuple(sorted(id for id in self.tokenizer.get_vocab().values() if id >= self.num_embeddings))

    def ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The tokens of `text`. Raises UnknownToken if one has no embedding."""
        ids = list(self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
        self.check(ids)
        return ids

    def check(self, ids: Sequence[int]) -> None:
        """Raises UnknownToken if one of `ids` has no embedding."""
        if not self.unknown_ids:
            return
        highest = max(ids, default=0)
        if highest >= self.num_embeddings:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise UnknownToken(highest, str(token), self.num_embeddings)

    def batch_ids(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """The tokens of each text, of which some may have no embedding: one call for all, on all cores."""
        if (rust := self.rust) is not None:
            return [found.ids for found in rust.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)]
        return [
            list(self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])
            for text in texts
        ]

    @property
    def encodes_beside(self) -> bool:
        """Whether another thread may encode while `batch_ids` does, which then leaves Python to it."""
        return self.rust is not None

    @property
    def rust(self) -> Tokenizer | None:
        """The tokenizer in Rust, where calling `tokenizer` does no more than that one does."""
        tokenizer = self.tokenizer
        if not isinstance(tokenizer, TokenizersBackend):
            return None
        rust: Tokenizer = tokenizer.backend_tokenizer
        plain = (
            type(tokenizer)._encode_plus is TokenizersBackend._encode_plus
            and rust.truncation is None
            and rust.padding is None
            and rust.encode_special_tokens == tokenizer.split_special_tokens
        )
        return rust if plain else None

    def special_id(self, token: str) -> int:
        """The id of a special token."""
        if token not in self._special_ids:
            (self._special_ids[token],) = self.ids(token, add_special_tokens=False)
        return self._special_ids[token]

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        return {}
