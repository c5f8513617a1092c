"""What every objective is: from a batch and a way to ask the model for logits, to a loss whose gradient trains.

Sums, not means: a step's micro-batches add up, and the loop divides once by the whole step's count, so that splitting
a step into micro-batches does not change what it weighs. Shapes: B rows, T tokens, K kept positions, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from service.recipes.implementations import Implementations
from workers.data.batches import Batch

# (input_ids_BT, attention_mask_BT, keep_K) -> logits_BKV: what the model says at those positions of the tokens.
Forward = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """Of one batch, summed over what the objective counts."""

    total: Tensor  # scalar, in nats; has the gradient
    sums: Mapping[str, Tensor]  # scalars without gradient; their means are metrics: `train_` and the name, and so on


class Objective(Protocol):
    """One loss. Holds settings, and no state of a job."""

    @property
    def needs_reference(self) -> bool:
        """Whether `loss` reads `reference_B`: each row's log-probability (`logprobs`) under the policy at step 0."""
        ...

    def count(self, batch: Batch) -> int:
        """How many tokens or pairs the batch trains: what the loop divides by."""
        ...

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        """Calls `forward` once or more often."""
        ...


# By the class of their settings; each has the decorator `@OBJECTIVES.of(SomeSettings)` and takes such settings.
OBJECTIVES: Implementations[Callable[[Any], Objective]] = Implementations("workers.objectives")
