"""The interface of objectives: a batch and the model's forward pass in, a loss with its gradient out.

Sums, not means: a step's micro-batches add up, and the loop divides once by the whole step's count, so that splitting
a step into micro-batches does not change how much a token counts. Shapes: B rows, T tokens, K kept positions,
V vocabulary, H hidden.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from service.domain.model import HeadConfig
from service.recipes.implementations import Implementations
from service.recipes.tasks import BaseKind
from workers.data.batches import IGNORED, Batch
from workers.data.tokenized import TokenizedDataset
from workers.model.head import Head
from workers.model.sampling import Sampling


@dataclass(frozen=True)
class TokenLosses:
    """-log p(token | tokens before) of each trained token, in nats and float32."""

    losses_BK: Tensor  # at the position before the token; 0 where none is trained
    keep_K: Tensor | None  # which positions these are; None: all
    num_right: Tensor  # scalar, without gradient: how many trained tokens are the likeliest ones

    def at(self, values_BT: Tensor) -> Tensor:
        """values_BK: at the positions of the losses."""
        return values_BT if self.keep_K is None else values_BT[:, self.keep_K]


class Forward(Protocol):
    """The base with the job's tuning, as an objective calls it. Every call is a pass through the base."""

    def token_losses(self, batch: Batch) -> TokenLosses:
        """Of the trained tokens; only their positions go through the output layer."""
        ...

    def logits(self, batch: Batch, keep_K: Tensor) -> Tensor:
        """logits_BKV: of the next token, at the positions `keep_K` of each row.

        For an objective that reads more of them than `token_losses` says. They mean nothing where a row has no such
        position.
        """
        ...

    def hidden(self, batch: Batch) -> Tensor:
        """hidden_BTH: the input of the output layer, in the base's dtype."""
        ...


def losses_of_columns(forward: Forward, batch: Batch) -> TokenLosses:
    """From the logits of every position whose next token is trained in some row."""
    keep_K = batch.trained_K
    targets_BK = batch.targets_BT[:, keep_K]
    logits_BKV = forward.logits(batch, keep_K)
    losses = cross_entropy(
        logits_BKV.flatten(0, 1).float(), targets_BK.flatten(), ignore_index=IGNORED, reduction="none"
    )
    with torch.no_grad():
        num_right = ((logits_BKV.argmax(dim=-1) == targets_BK) & (targets_BK != IGNORED)).sum()
    return TokenLosses(losses.view_as(targets_BK), keep_K, num_right)


class Sampler(Protocol):
    """Draws tokens from the base with the job's tuning, as an engine would."""

    def sample(
        self, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int, sampling: Sampling
    ) -> list[list[list[int]]]:
        """`num_samples` completions of each prompt, of 1 to `max_tokens` tokens, the end token included.

        The random numbers follow from the job's seed, the step and the row (a `seed` in `sampling` is ignored).
        """
        ...


@dataclass(frozen=True)
class Loss:
    """The loss of one batch, summed over what the objective counts."""

    total: Tensor  # scalar, in nats; has the gradient
    # Scalars without gradient; their means are metrics such as `train_<name>`. A mean that is NaN is left out.
    sums: Mapping[str, Tensor]
    outputs: Tensor | None = None  # of each row, for `Objective.evaluate`


@dataclass(frozen=True)
class WholeFile:
    """What only a whole file shows."""

    metrics: Mapping[str, float]  # named `full_valid_<name>`
    tables: Mapping[str, str] = field(default_factory=dict)  # name -> text; stored beside the adapter


class Objective(ABC):
    """One loss, created for each job. Holds its settings and its own parameters, if any."""

    @property
    def needs_reference(self) -> bool:
        """Whether `loss` reads `reference_B`: each row's log-probability (`logprobs`) under the job's reference."""
        return False

    @property
    def contrasts(self) -> bool:
        """Whether an example's loss grows with the number of others in its step, from which it is told.

        A file is then measured in steps of the job's size, not as a whole.
        """
        return False

    def prepare(self, train: TokenizedDataset, kind: BaseKind) -> None:  # noqa: B027  # most need nothing of it
        """Takes what it needs to know of the training file and of the base. Called once, before `attach`."""

    def attach(self, hidden_size: int, device: torch.device) -> None:  # noqa: B027  # most have none
        """Creates its own parameters (a head), in float32, drawn from torch's global generator. Called once."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Its own trained parameters, by their names in the saved file; none before `attach`."""
        return {}

    @abstractmethod
    def count(self, batch: Batch) -> int:
        """The number of tokens, rows or pairs that `loss` sums over. The batch is on the host."""

    def shared(self, forward: Forward, batches: Iterable[Batch]) -> Tensor | None:
        """What the losses of all micro-batches of a step have in common; `loss` gets it as the batch's `shared`.

        Called once for a step, without gradient, before its losses, with the batches in the order of these. Most have
        none.
        """
        return None

    @abstractmethod
    def loss(self, forward: Forward, batch: Batch) -> Loss:
        """Calls `forward`, unless `shared` has all that is asked. Reads no tensor's value: that would wait for the
        device."""

    def evaluate(self, dataset: TokenizedDataset, outputs: Sequence[Tensor]) -> WholeFile:
        """What follows from `Loss.outputs` of all rows of a file, on the host. Called where `loss` gives some."""
        return WholeFile({})


class HeadObjective(Objective):
    """Learns what a head computes of the base's states; its models return that, and no text. Most heads have a layer.

    `prepare` sets `config`.
    """

    config: HeadConfig
    head: Head

    def attach(self, hidden_size: int, device: torch.device) -> None:
        self.head = Head(self.config, hidden_size, device)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self.head.parameters

    def training_tables(self, train: TokenizedDataset) -> Mapping[str, str]:
        """About the training file's rows, for the job's result files: name -> text."""
        return {}

    def logits(self, forward: Forward, batch: Batch) -> Tensor:
        """logits_BC."""
        return self.head.logits(forward.hidden(batch), batch.attention_mask_BT)


@dataclass(frozen=True)
class Sampled:
    """One row of a roll-out."""

    prompt: Sequence[int]
    completion: Sequence[int]


class SamplingObjective(Objective):
    """Learns from what the model itself generates: every step is a roll-out, its rewards, and one update from both.

    The rows of the training file give the prompts: their tokens before the first trained one. Those of a validation
    file reach `loss` unchanged, without the columns that `learn_from` adds.
    """

    @property
    @abstractmethod
    def samples_per_prompt(self) -> int:
        """How many rows `roll_out` makes of a prompt; it limits how many prompts are decoded together."""

    @abstractmethod
    def roll_out(self, sampler: Sampler, prompts: Sequence[Sequence[int]]) -> list[Sampled]:
        """Completes some of a step's prompts. The result depends on the arguments only."""

    @abstractmethod
    def rewards(self, rows: Sequence[Sampled]) -> list[float] | None:
        """One number for each row of a step's roll-out; None if only the trainer's parent can compute them."""

    @abstractmethod
    def learn_from(self, rows: Sequence[Sampled], rewards: Sequence[float]) -> TokenizedDataset:
        """The rows that the step's update trains on. `loss` gets them in micro-batches, with their columns."""


# By the class of their settings: the decorator `@OBJECTIVES.of(SomeSettings)` registers a class that takes them.
OBJECTIVES: Implementations[Callable[[Any], Objective]] = Implementations("workers.objectives")
