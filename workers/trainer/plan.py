"""Which rows go through the base together: the micro-batches of one step.

A function of the rows' lengths alone, so that the plan is frozen with the data: a resumed job repeats it.
"""

from collections.abc import Sequence

LIMIT_TOKENS = 4096  # padded tokens of one micro-batch; a constant, since another plan would give other last bits


def micro_batches(rows: Sequence[int], lengths: Sequence[int], limit_tokens: int = LIMIT_TOKENS) -> list[list[int]]:
    """`rows` in groups of at most `limit_tokens` padded tokens (a longer row goes alone), longest first.

    `lengths[i]` is the length of `rows[i]`. Rows of similar length share a group, which keeps the padding small.
    """
    longest_first = sorted(zip(lengths, rows, strict=True), key=lambda pair: -pair[0])
    groups: list[list[int]] = []
    width = 0
    for length, row in longest_first:
        if not groups or (len(groups[-1]) + 1) * width > limit_tokens:
            groups.append([])
            width = length
        groups[-1].append(row)
    return groups
