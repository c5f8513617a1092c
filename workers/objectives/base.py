"""What every objective is: from a batch and a way to ask the model, to a loss whose gradient trains.

Sums, not means: a step's micro-batches add up, and the loop divides once by the whole step's count, so that splitting
a step into micro-batches does not change what it weighs. Shapes: B rows, T tokens, K kept positions, V vocabulary,
H hidden.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from service.recipes.implementations import Implementations
from workers.data.batches import Batch
from workers.data.tokenized import TokenizedDataset
from workers.model.sampling import Sampling


class Forward(Protocol):
    """The base with the job's tuning, as an objective asks it about a batch. Every call is a pass through the base."""

    def logits(self, batch: Batch, keep_K: Tensor) -> Tensor:
        """logits_BKV: of the next token, at those positions of the rows."""
        ...

    def hidden(self, batch: Batch) -> Tensor:
        """hidden_BTH: the states that the output layer reads, in the base's type."""
        ...


class Sampler(Protocol):
    """Draws tokens from the base with the job's tuning, as an engine would."""

    def sample(
        self, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int, sampling: Sampling
    ) -> list[list[list[int]]]:
        """`num_samples` completions of each prompt, of 1 to `max_tokens` tokens; one that ended has its end token.

        The random numbers follow from the job's seed, the step and the row (a `seed` in `sampling` is not read).
        """
        ...


@dataclass(frozen=True)
class Loss:
    """Of one batch, summed over what the objective counts."""

    total: Tensor  # scalar, in nats; has the gradient
    sums: Mapping[str, Tensor]  # scalars without gradient; their means are metrics: `train_` and the name, and so on


class Objective(ABC):
    """One loss, made anew for every job. Holds settings and the parameters of its own, where it has some."""

    @property
    def needs_reference(self) -> bool:
        """Whether `loss` reads `reference_B`: each row's log-probability (`logprobs`) under the policy at step 0."""
        return False

    def attach(self, hidden_size: int, device: torch.device) -> None:  # noqa: B027  # most have none
        """Makes the parameters of its own (a head), in float32, drawn from torch's global generator. Called once."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What moves besides the tuning, by its name in the saved file; none before `attach`."""
        return {}

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """How many tokens, rows or pairs the batch trains: what the loop divides by. The batch is on the host."""

    @abstractmethod
    def loss(self, forward: Forward, batch: Batch) -> Loss:
        """Calls `forward` once or more often. Reads no tensor's value: whoever does waits for the device."""


@dataclass(frozen=True)
class Sampled:
    """One row of a roll-out."""

    prompt: Sequence[int]
    completion: Sequence[int]


class SamplingObjective(Objective):
    """Learns from what the model itself writes: every step is a roll-out, its rewards, and one update from both.

    The rows of the training file give the prompts: their tokens before the first trained one. Those of a validation
    file come to `loss` as they are, without the columns that `learn_from` gives.
    """

    @property
    @abstractmethod
    def samples_per_prompt(self) -> int:
        """How many rows `roll_out` makes of a prompt, for the bound on what is decoded together."""

    @abstractmethod
    def roll_out(self, sampler: Sampler, prompts: Sequence[Sequence[int]]) -> list[Sampled]:
        """Some of a step's prompts, completed. Its result depends on its arguments only."""

    @abstractmethod
    def rewards(self, rows: Sequence[Sampled]) -> list[float] | None:
        """One number for each row of a step's roll-out; None where only the trainer's parent can find them."""

    @abstractmethod
    def learn_from(self, rows: Sequence[Sampled], rewards: Sequence[float]) -> TokenizedDataset:
        """What the step's update trains. `loss` gets it in micro-batches, with its columns."""


# By the class of their settings; each has the decorator `@OBJECTIVES.of(SomeSettings)` and takes such settings.
OBJECTIVES: Implementations[Callable[[Any], Objective]] = Implementations("workers.objectives")
