"""What every objective is: from a batch and a way to ask the model for logits, to a loss whose gradient trains.

Sums, not means: a step's micro-batches add up, and the loop divides once by the whole step's count, so that splitting
a step into micro-batches does not change what it weighs. Shapes: B rows, T tokens, K kept positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from workers.data.batches import Batch

# (input_ids_BT, attention_mask_BT, keep_K) -> logits_BKV: what the model says at those positions of the tokens.
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """Of one batch, summed over the tokens that train."""

    total: Tensor  # scalar, in nats; has the gradient
    num_tokens: int
    num_correct: Tensor  # scalar: tokens whose likeliest prediction was right


class Objective(Protocol):
    """One loss. Holds no state of a job."""

    def num_tokens(self, batch: Batch) -> int:
        """How many tokens of the batch train: what the loop divides by."""
        ...

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        """Calls `forward` once or more often."""
        ...
