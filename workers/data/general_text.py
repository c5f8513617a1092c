"""A fixed English text that no job trains on: what a tuning costs a model elsewhere is measured on it.

`general_text.txt` holds a passage each of Alice's Adventures in Wonderland (Carroll, 1865), Pride and Prejudice
(Austen, 1813), The Adventures of Sherlock Holmes (Doyle, 1892), The Time Machine (Wells, 1895) and The Wonderful Wizard
of Oz (Baum, 1900), after Project Gutenberg's editions with line breaks and marks of emphasis taken out; in the public
domain.
Figures of different versions can be compared only while it stays as it is.
"""

from pathlib import Path

from workers.data.base_text import BaseText

_FILE = Path(__file__).with_suffix(".txt")
PIECE_TOKENS = 256  # a passage is shorter for most tokenizers; a bounded piece fits beside other jobs' memory


def general_text() -> list[str]:
    """The passages."""
    return _FILE.read_text(encoding="utf-8").strip().split("\n\n")


def general_ids(text: BaseText, limit_tokens: int) -> list[list[int]]:
    """The passages as tokens, in pieces of at most `limit_tokens` and PIECE_TOKENS, and of at least two.

    Tokens that the base's weights have no embedding for are left out.
    """
    size = min(limit_tokens, PIECE_TOKENS)
    pieces: list[list[int]] = []
    for passage in general_text():
        ids = [id for id in text.tokenizer(passage, verbose=False)["input_ids"] if id < text.num_embeddings]
        pieces += [ids[begin : begin + size] for begin in range(0, len(ids), size)]
    return [piece for piece in pieces if len(piece) > 1]
