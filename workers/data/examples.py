"""Which rows are one example together, where that is neither one row nor the pair of a format.

    packed      rows of plain text, so that examples have about as many tokens each. They stay apart: each goes through
                the base with its own positions and sees no other, whatever family the base has and whatever a tuning
                puts before the tokens. Rows of similar length share a micro-batch, so little is padded.
    mismatched  a labelled answer, then its prompt with the completion of a row with another prompt, from which `kto`
                estimates a divergence

Made when a file is tokenised, so that they depend on the file alone: not on steps, micro-batches or other jobs.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from workers.data.tokenized import DatasetBuilder, TokenizedDataset


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


def with_mismatched(rows: TokenizedDataset, context_tokens: int) -> TokenizedDataset:
    """Example k: row k, then its prompt with the completion of a row that has another prompt.

    Every completion is used once, so that those of wanted and of unwanted answers are as frequent among the mismatched
    ones as in the file. Only where more than half of the rows have one prompt, others' completions are used again for
    them, in turn; where all prompts are equal, the completion is that of the row before. A mismatched row that is
    longer than the context is cut. The second row has the label and the weight of the first.
    """
    others = _others(rows)
    made = DatasetBuilder()
    for index in range(len(rows)):
        tokens, trained = rows.row(index)
        label = None if rows.row_labels is None else int(rows.row_labels[index])
        weight = None if rows.row_weights is None else float(rows.row_weights[index])
        made.add(tokens.tolist(), trained.tolist(), label=label, weight=weight)
        prompt, completion = rows.prompt(index), _completion(rows, others[index])
        mismatched = np.concatenate([prompt, completion])[:context_tokens]
        flags = [0] * len(prompt) + [1] * (len(mismatched) - len(prompt))
        made.add(mismatched.tolist(), flags, label=label, weight=weight)
    return made.build(rows_per_example=2)


def _completion(rows: TokenizedDataset, index: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return rows.row(index)[0][len(rows.prompt(index)) :]


def _others(rows: TokenizedDataset) -> list[int]:
    """For each row, the row whose completion is its mismatched one.

    Rows of one prompt are put next to each other, and all rows are shifted by the size of the largest of these groups:
    none then meets its own prompt, unless that group is more than half of the file.
    """
    groups: dict[bytes, list[int]] = {}
    for index in range(len(rows)):
        groups.setdefault(rows.prompt(index).tobytes(), []).append(index)
    if len(groups) <= 1:
        return [(index - 1) % len(rows) for index in range(len(rows))]
    largest = max(groups.values(), key=len)
    in_order = [index for group in groups.values() for index in group]
    others = [0] * len(rows)
    for place, index in enumerate(in_order):
        others[index] = in_order[place - len(largest)]
    if 2 * len(largest) > len(rows):
        same = set(largest)
        rest = [index for index in in_order if index not in same]
        for place, index in enumerate(largest):
            others[index] = rest[place % len(rest)]
    return others
