"""Which examples go through the base together: the micro-batches of one step.

A function of the rows' lengths alone, so that the plan is frozen with the data: a resumed job repeats it.
"""

from collections.abc import Sequence

LIMIT_TOKENS = 4096  # padded tokens of one micro-batch; a constant, since another plan would give other last bits


def micro_batches(
    examples: Sequence[int], lengths: Sequence[int], rows_per_example: int = 1, limit_tokens: int = LIMIT_TOKENS
) -> list[list[int]]:
    """`examples` in groups of at most `limit_tokens` padded tokens (a longer one goes alone), longest first.

    `lengths[i]` is the length of the longest row of `examples[i]`, whose rows are never parted. Examples of similar
    length share a group, which keeps the padding small.
    """
    longest_first = sorted(zip(lengths, examples, strict=True), key=lambda pair: -pair[0])
    groups: list[list[int]] = []
    width = 0
    for length, example in longest_first:
        if not groups or (len(groups[-1]) + 1) * rows_per_example * width > limit_tokens:
            groups.append([])
            width = length
        groups[-1].append(example)
    return groups
