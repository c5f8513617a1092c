"""Two made-up objectives for tests of the trainer: one with a head on the states, one that learns from what it samples.

Their settings are in no registry of the service (`known` lets a job.json name them), so no test sees them by accident.
Shapes: B rows, T tokens, H hidden.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from service.recipes import objective as recipes
from service.recipes.format import Format
from service.recipes.formats.chat import Chat
from service.recipes.objective import ObjectiveSettings
from workers.data.batches import Batch
from workers.data.tokenized import DatasetBuilder, TokenizedDataset
from workers.model.sampling import Sampling
from workers.objectives import Forward, Loss, Objective, Sampled, Sampler, SamplingObjective, logprobs
from workers.objectives.base import OBJECTIVES


class GuessSettings(ObjectiveSettings):
    """Made up for a test: a linear head guesses, from the state at its last token, how long a row is."""

    name: ClassVar[str] = "guess"
    formats: ClassVar[tuple[type[Format], ...]] = (Chat,)
    columns: ClassVar[Mapping[str, str]] = {}
    metrics: ClassVar[tuple[str, ...]] = ("distance",)

    detached: bool = False  # then the adapter learns nothing, the head alone does
    outputs: int = 1


@OBJECTIVES.of(GuessSettings)
class Guess(Objective):
    """The sum of (w h + b - length / 10)^2 over rows."""

    def __init__(self, settings: GuessSettings) -> None:
        self._settings = settings
        self._head: nn.Linear | None = None

    def attach(self, hidden_size: int, device: torch.device) -> None:
        self._head = nn.Linear(hidden_size, self._settings.outputs, device=device)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return {} if self._head is None else dict(self._head.named_parameters())

    def count(self, batch: Batch) -> int:
        return len(batch.input_ids_BT)

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        assert self._head is not None
        lengths_B = batch.attention_mask_BT.sum(dim=1)
        hidden_BTH = forward.hidden(batch)
        hidden_BH = hidden_BTH[torch.arange(len(lengths_B), device=lengths_B.device), lengths_B - 1].float()
        guesses_B: Tensor = self._head(hidden_BH.detach() if self._settings.detached else hidden_BH)[:, 0]
        distances_B = guesses_B - lengths_B / 10
        return Loss(distances_B.square().sum(), {"distance": distances_B.detach().abs().sum()})


class EvenSettings(ObjectiveSettings):
    """Made up for a test: sampled tokens with an even number are rewarded (REINFORCE with the group's mean)."""

    name: ClassVar[str] = "even"
    formats: ClassVar[tuple[type[Format], ...]] = (Chat,)
    columns: ClassVar[Mapping[str, str]] = {}
    metrics: ClassVar[tuple[str, ...]] = ()

    asks: bool = False  # the parent for its rewards
    max_tokens: int = 6


def evenness(row: Sampled) -> float:
    """The reward: the share of even tokens."""
    return sum(token % 2 == 0 for token in row.completion) / len(row.completion)


@OBJECTIVES.of(EvenSettings)
class Even(SamplingObjective):
    """The sum over rows of -advantage * log p(completion | prompt)."""

    samples_per_prompt = 4

    def __init__(self, settings: EvenSettings) -> None:
        self._settings = settings

    def roll_out(self, sampler: Sampler, prompts: Sequence[Sequence[int]]) -> list[Sampled]:
        groups = sampler.sample(prompts, self.samples_per_prompt, self._settings.max_tokens, Sampling())
        return [Sampled(prompt, row) for prompt, group in zip(prompts, groups, strict=True) for row in group]

    def rewards(self, rows: Sequence[Sampled]) -> list[float] | None:
        return None if self._settings.asks else [evenness(row) for row in rows]

    def learn_from(self, rows: Sequence[Sampled], rewards: Sequence[float]) -> TokenizedDataset:
        data = DatasetBuilder()
        for place, (row, reward) in enumerate(zip(rows, rewards, strict=True)):
            begin = place - place % self.samples_per_prompt
            group = rewards[begin : begin + self.samples_per_prompt]
            trained = [0] * len(row.prompt) + [1] * len(row.completion)
            data.add([*row.prompt, *row.completion], trained, weight=reward - sum(group) / len(group))
        return data.build()

    def count(self, batch: Batch) -> int:
        return len(batch.input_ids_BT)

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        logprobs_B = logprobs(forward, batch)
        if batch.row_weights_B is None:  # of a validation file
            return Loss(-logprobs_B.sum(), {})
        return Loss(-(batch.row_weights_B * logprobs_B).sum(), {})


def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job.json may name them, for the rest of the test."""
    found = recipes.find_objective
    own = {one.name: one for one in (GuessSettings, EvenSettings)}
    monkeypatch.setattr(recipes, "find_objective", lambda name: own.get(name) or found(name))
