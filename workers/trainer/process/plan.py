"""The plan of a step: which of its examples go through the base together, and how.

Rows of a micro-batch are padded to the longest of them, and padding is computed like any token; but every micro-batch
has a cost of its own. The plan makes the sum of both smallest. It is a function of the lengths alone, so that a
resumed job gets the same micro-batches: others would give other last bits. A snapshot has the version of its plan, by
which its job continues:

1   rows are padded; a micro-batch is closed when it is full. Logits of every column that is trained in some row
2   rows are padded; the cheapest micro-batches
3   rows are packed one behind the other where base and method allow it, else padded as in 2. Logits of the trained
    positions alone

A row of an encoder-decoder has two sequences, each padded to the longest of its micro-batch.
"""

from collections.abc import Sequence
from typing import Literal

PlanVersion = Literal[1, 2, 3]
Lengths = tuple[int, int]  # of a row's second sequence and of the row
CURRENT: PlanVersion = 3
LABELS_ONLY: PlanVersion = 3  # since that version
LIMIT_TOKENS = 4096  # of one micro-batch, padding included; a longer example goes alone
# What a micro-batch costs besides its tokens, in tokens. On one CPU core, all layers tuned, forward and backward:
# 73 at 4 M parameters, 41 at 12 M, 30 at 135 M (benchmarks/micro_batch_cost.txt).
COST_TOKENS = 64


def micro_batches(
    examples: Sequence[int],
    lengths: Sequence[int],
    rows_per_example: int = 1,
    *,
    second_lengths: Sequence[int] | None = None,
    version: PlanVersion | None = None,
    limit_tokens: int | None = None,
) -> list[list[int]]:
    """`examples` in groups of at most `limit_tokens` padded tokens, longest first.

    Without `version` and `limit_tokens`: CURRENT and LIMIT_TOKENS. `lengths[i]` is the length of the longest row of
    `examples[i]`, whose rows stay together; `second_lengths[i]` that of its longest second sequence.
    """
    version, limit_tokens = version or CURRENT, limit_tokens or LIMIT_TOKENS
    both = zip([0] * len(lengths) if second_lengths is None else second_lengths, lengths, strict=True)
    longest_first = sorted(zip(both, examples, strict=True), key=lambda pair: pair[0], reverse=True)
    sizes = [(one * rows_per_example, other * rows_per_example) for (one, other), _ in longest_first]
    ends = _fewest(sizes, limit_tokens) if version == 1 else _cheapest(sizes, limit_tokens)
    order = [example for _, example in longest_first]
    return [order[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def packed_micro_batches(
    examples: Sequence[int], sizes: Sequence[int], *, limit_tokens: int | None = None
) -> list[list[int]]:
    """`examples` in groups of at most `limit_tokens` tokens (without: LIMIT_TOKENS), the largest first.

    `sizes[i]` is the number of tokens of all rows of `examples[i]`.
    """
    limit_tokens = limit_tokens or LIMIT_TOKENS
    groups: list[list[int]] = []
    filled = limit_tokens
    for size, example in sorted(zip(sizes, examples, strict=True), key=lambda pair: -pair[0]):
        if filled + size > limit_tokens:
            groups.append([])
            filled = 0
        groups[-1].append(example)
        filled += size
    return groups


def _fewest(sizes: Sequence[Lengths], limit_tokens: int) -> list[int]:
    """Version 1: a group is closed when it is full. Where each group ends."""
    ends: list[int] = []
    begin, longest = 0, (0, 0)
    for index, size in enumerate(sizes):
        longest = _longer(longest, size)
        if index > begin and (index + 1 - begin) * sum(longest) > limit_tokens:
            ends.append(index)
            begin, longest = index, size
    return [*ends, len(sizes)]


def _cheapest(sizes: Sequence[Lengths], limit_tokens: int) -> list[int]:
    """Version 2: cost(end) = min over begin of  cost(begin) + COST_TOKENS + (end - begin) width(begin, end),  the width
    of a group being the sum of its sequences' greatest lengths. Where each group of the cheapest plan ends; of equals
    the one whose last group is longest."""
    costs, begins = [0], [0]
    for end in range(1, len(sizes) + 1):
        best, chosen = -1, end - 1
        longest = sizes[end - 1]
        for begin in range(end - 1, -1, -1):
            longest = _longer(longest, sizes[begin])
            tokens = (end - begin) * sum(longest)
            if tokens > limit_tokens and begin < end - 1:
                break  # an earlier beginning is wider and longer
            cost = costs[begin] + COST_TOKENS + tokens
            if best < 0 or cost <= best:
                best, chosen = cost, begin
        costs.append(best)
        begins.append(chosen)
    ends = []
    end = len(sizes)
    while end > 0:
        ends.append(end)
        end = begins[end]
    return ends[::-1]


def _longer(one: Lengths, other: Lengths) -> Lengths:
    """Of each sequence the greater length."""
    return max(one[0], other[0]), max(one[1], other[1])
