"""Tokenised rows as text again: which stretches of each are trained, exactly as the base reads them.

Made from the tokens that are trained, never by rendering again, so that what is shown is what is done. Written once,
row by row, with an index by which any range is read.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from service.domain.check import ROW, Counts, LengthBucket, Piece, RowMask, SequenceMask
from workers.data.tokenized import TokenizedDataset

_CONTEXT = 16  # tokens before a piece that are decoded with it: some decoders change the beginning of a text
_BUCKETS_PER_DOUBLING = 4


def write_masks(
    dataset: TokenizedDataset, rows: Sequence[int], tokenizer: PreTrainedTokenizerBase, masks: Path, index: Path
) -> None:
    """Writes the masks of all rows as JSON lines, and where each begins. `rows[i]` is how many sequences row i has."""
    place = 0
    with masks.open("wb") as lines, index.open("wb") as places:
        places.write(struct.pack("<q", place))
        for mask in row_masks(dataset, rows, tokenizer):
            place += lines.write(ROW.dump_json(mask) + b"\n")
            places.write(struct.pack("<q", place))


def row_masks(dataset: TokenizedDataset, rows: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[RowMask]:
    """The masks of all rows of the file, in order. Mismatched rows (`workers.data.examples`) are not shown: they are of
    no row of the file, and only measured."""
    begin, stored = 0, _stored(dataset, rows)
    for line, num_sequences in enumerate(rows, start=1):
        sequences = range(begin, begin + num_sequences)
        yield RowMask(line, [_sequence(dataset, stored * sequence, tokenizer) for sequence in sequences])
        begin += num_sequences


def _sequence(dataset: TokenizedDataset, index: int, tokenizer: PreTrainedTokenizerBase) -> SequenceMask:
    """Of an encoder-decoder what its encoder reads, then what its decoder writes after the start token."""
    ids, trained = dataset.row(index)
    if dataset.token_weights is None:
        weights: NDArray[np.float32] = trained.astype(np.float32)
    else:
        weights = dataset.token_weights[dataset.offsets[index] : dataset.offsets[index + 1]]
    read = dataset.second(index)
    begin = 1 if len(read) else 0
    found = pieces(ids[begin:].tolist(), trained[begin:].tolist(), weights[begin:].tolist(), tokenizer)
    if len(read):
        found = [Piece(_decoded(read.tolist(), tokenizer), False, 0.0, len(read)), *found]
    return SequenceMask(len(read) + len(ids) - begin, int(trained.sum()), found)


def pieces(
    ids: Sequence[int], trained: Sequence[int], weights: Sequence[float], tokenizer: PreTrainedTokenizerBase
) -> list[Piece]:
    """Stretches of equal flag and weight; their texts together are the text of all `ids`."""
    found, begin = [], 0
    for (flag, weight), run in groupby(zip(trained, weights, strict=True)):
        end = begin + sum(1 for _ in run)
        found.append(Piece(_text(ids, begin, end, tokenizer), bool(flag), float(weight), end - begin))
        begin = end
    return found


def _text(ids: Sequence[int], begin: int, end: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """What ids[begin:end] add to the text before them."""
    before = ids[max(0, begin - _CONTEXT) : begin]
    known = _decoded(before, tokenizer) if before else ""
    both = _decoded([*before, *ids[begin:end]], tokenizer)
    return both[len(known) :] if both.startswith(known) else _decoded(ids[begin:end], tokenizer)


def _decoded(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def counts(dataset: TokenizedDataset, rows: Sequence[int], context_tokens: int) -> Counts:
    """Exact counts of a file. `rows[i]` is how many sequences row i has; mismatched rows are not counted."""
    stored = _stored(dataset, rows)
    lengths = np.diff(dataset.offsets)[::stored]
    if dataset.second_offsets is not None:
        lengths = lengths + np.diff(dataset.second_offsets)[::stored]
    trained = np.add.reduceat(dataset.trained, dataset.offsets[:-1], dtype=np.int64)[::stored]
    return Counts(
        rows=len(rows),
        sequences=len(lengths),
        examples=dataset.num_examples,
        tokens=int(lengths.sum()),
        trained_tokens=int(trained.sum()),
        longest_tokens=int(lengths.max()),
        context_tokens=context_tokens,
        lengths=_histogram(lengths),
    )


def _stored(dataset: TokenizedDataset, rows: Sequence[int]) -> int:
    """Rows of the dataset per sequence of the file: 2 where each has a mismatched one, else 1."""
    return len(dataset) // max(1, sum(rows))


def _histogram(lengths: NDArray[np.int64]) -> list[LengthBucket]:
    """Buckets from that of the shortest to that of the longest sequence; four of them double the length."""
    powers = np.arange(int(lengths.max()).bit_length() * _BUCKETS_PER_DOUBLING + 1) / _BUCKETS_PER_DOUBLING
    edges = np.unique([0, *np.ceil(np.exp2(powers)).astype(np.int64)])
    first, last = np.searchsorted(edges, [lengths.min(), lengths.max()], side="right")
    bounds = edges[first - 1 : last + 1].tolist()
    found, _ = np.histogram(lengths, bins=bounds)
    return [
        LengthBucket(below, above, int(count)) for below, above, count in zip(bounds, bounds[1:], found, strict=False)
    ]
