"""Whether an engine computes a trained head: what it returns for some texts, in the trainer and in the engine.

Both are probabilities of labels, scores, or vectors of length 1; the same weights in the same number format differ by
rounding alone. What the tuning changes of them says whether the comparison could see an engine that leaves the tuning
out. Numbers only: knows no engine, no storage and no job.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workers.trainer.protocol import HeadRow

# Of a probability, of the distance between two vectors, or of a score and as much again for each unit of it. Float32
# differs by 1e-6 (padding, threads).
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


@dataclass(frozen=True)
class HeadComparison:
    """The greatest difference of any output of any row, as a share of what is tolerated: above 1 is too much."""

    num_rows: int
    difference: float  # between trainer and engine
    effect: float  # between the trainer with the tuning and without it

    @property
    def contradicts(self) -> bool:
        return not self.difference <= 1

    @property
    def decisive(self) -> bool:
        """Whether an engine that leaves the tuning out would have been refused."""
        return self.effect > 2


def compare_heads(
    rows: Sequence[HeadRow], served: Sequence[Sequence[float]], dtype: str, *, vectors: bool = False
) -> HeadComparison:
    """`served` are an engine's outputs for the rows; `dtype` is the base's. `vectors`: those of a row are one vector.

    Raises ValueError where shapes differ.
    """
    if not rows or len(rows) != len(served):
        raise ValueError("the engine did not compute the rows that the trainer did")
    tolerance, greatest = TOLERANCE[dtype], _apart if vectors else _greatest
    difference = max(greatest(row.values, theirs, tolerance) for row, theirs in zip(rows, served, strict=True))
    effect = max(greatest(row.values, row.base_values, tolerance) for row in rows)
    return HeadComparison(len(rows), difference, effect)


def _greatest(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> float:
    if len(ours) != len(theirs):
        return math.inf
    shares = [abs(a - b) / (tolerance * (1 + max(0.0, abs(a) - 1))) for a, b in zip(ours, theirs, strict=True)]
    return math.inf if any(math.isnan(share) for share in shares) else max(shares)


def _apart(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> float:
    if len(ours) != len(theirs):
        return math.inf
    share = math.dist(ours, theirs) / tolerance
    return math.inf if math.isnan(share) else share
