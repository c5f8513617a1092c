"""Packing: which rows of plain text are one example together, so that examples have about as many tokens each.

The rows stay apart: each goes through the base with its own positions and sees no other, whatever family the base has
and whatever a tuning puts before the tokens. Rows of similar length share a micro-batch, so little is padded.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from workers.data.tokenized import TokenizedDataset


def pieces(ids: list[int], context_tokens: int) -> list[list[int]]:
    """A document's tokens in pieces of at most `context_tokens`, which is 2 or more.

    A piece begins with the last token of the one before: it is context there, so that every token but the document's
    first is trained exactly once.
    """
    stride = context_tokens - 1
    return [ids[begin : begin + context_tokens] for begin in range(0, max(1, len(ids) - 1), stride)]


def packed(rows: TokenizedDataset, context_tokens: int) -> TokenizedDataset:
    """The same rows, in examples of at most `context_tokens` tokens: adjacent rows, as many as fit (next fit)."""
    return replace(rows, example_offsets=np.array(_offsets(np.diff(rows.offsets).tolist(), context_tokens)))


def _offsets(lengths: Iterable[int], limit_tokens: int) -> list[int]:
    """Where each example begins, in rows, and where the last one ends."""
    offsets, row, filled = [0], 0, 0
    for row, length in enumerate(lengths, start=1):
        if filled and filled + length > limit_tokens:
            offsets.append(row - 1)
            filled = 0
        filled += length
    return [*offsets, row] if row else offsets
