"""The tokens of a base: which ones end a sequence, and the text and bytes of a single one.

Has no requests and no tensors.
"""

from dataclasses import dataclass

from tokenizers import Tokenizer, decoders

from workers.data.template import ChatTemplate
from workers.engines.embedded.text import BROKEN
from workers.model.load import LoadedBase
from workers.model.sampling import Token

# Byte-level BPE writes each byte as one printable character (GPT-2's table): most Latin-1 ones stand for themselves.
_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PLAIN} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted(set(range(0x100)) - set(_PLAIN)))
}


@dataclass(frozen=True)
class Spelled:
    """A scored token as log-probabilities show it. `bytes` is None where the vocabulary does not have them."""

    text: str
    bytes: tuple[int, ...] | None
    logprob: float


@dataclass(frozen=True)
class Entry:
    """One generated or prompt token among the log-probabilities; only a prompt's first one has no logprob."""

    text: str
    bytes: tuple[int, ...] | None
    logprob: float | None
    offset: int  # characters before it in the text
    top: tuple[Spelled, ...]


class Vocabulary:
    """The tokens of one base."""

    def __init__(self, base: LoadedBase) -> None:
        self.tokenizer: Tokenizer = base.tokenizer.backend_tokenizer
        self.end_tokens = ChatTemplate(base.text).end_ids
        self.size = base.text.num_embeddings
        self._byte_level = isinstance(self.tokenizer.decoder, decoders.ByteLevel)
        self._added = self.tokenizer.get_added_tokens_decoder()

    def entry(self, token: Token, offset: int) -> Entry:
        top = tuple(Spelled(*self._spell(id), logprob) for id, logprob in token.top)
        return Entry(*self._spell(token.id), token.logprob, offset, top)

    def _spell(self, id: int) -> tuple[str, tuple[int, ...] | None]:
        text: str = self.tokenizer.decode([id], skip_special_tokens=False)
        if self._byte_level and id not in self._added:
            letters = self.tokenizer.id_to_token(id) or ""  # models pad their vocabulary with ids of no token
            return text, tuple(_BYTES[letter] for letter in letters)
        return text, None if BROKEN in text else tuple(text.encode())
