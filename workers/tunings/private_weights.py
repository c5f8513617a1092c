"""Tunings that move the base's own weights: in a copy that has what moves for itself and shares the rest.

The shared base is never touched, so jobs and requests beside it notice nothing. What moves is trained in float32
whatever the base's type, so that small updates are not rounded off: over a base of a coarser type the float32 weights
stand beside, and the copy computes with their rounded values (section 3.1 of Micikevicius et al., 2017,
arXiv 1710.03740).
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from service.recipes.tuning import TuningSettings
from workers.tunings.base import Chunk, Inputs, plain_inputs, private_bytes, private_copy
from workers.tunings.own_format import OwnFormat
from workers.tunings.peft_layers import linear_layers
from workers.tunings.sites import Rows
from workers.tunings.weight_changes import Change


class PrivateWeights(OwnFormat):
    """A `Tuning` except for which parameters move. Saved is what moves and nothing else, in the base's type: the very
    numbers that compute."""

    mixes_rows: ClassVar[bool] = False

    def __init__(self, model: PreTrainedModel, name: str, settings: TuningSettings) -> None:
        super().__init__(model, name, settings)
        self._copy: PreTrainedModel | None = None
        self._rounded: dict[str, nn.Parameter] = {}  # what the copy computes with, where that is another type's
        self._versions: dict[str, int] = {}  # of the parameters when they were rounded last
        self._moved = False  # whether an optimizer may have changed them since: torch's fused ones count no version

    @abstractmethod
    def moving(self) -> set[str]:
        """The names in the base of the parameters that move. Raises JobError where there are none."""

    @property
    def model(self) -> PreTrainedModel:
        return self._copy or self._base

    def memory_bytes(self) -> int:
        moving = self.moving()
        coarse = [
            parameter
            for name, parameter in self._base.named_parameters()
            if name in moving and parameter.dtype != torch.float32
        ]
        beside = sum(parameter.numel() for parameter in coarse) * torch.float32.itemsize
        return private_bytes(self._base, moving.__contains__) + beside

    def attach(self) -> None:
        """Raises JobError if the settings do not fit the base."""
        moving = self.moving()
        self._copy = private_copy(self._base, moving.__contains__)
        for name, parameter in self._copy.named_parameters():
            if name in moving and parameter.dtype == torch.float32:
                self._parameters[name] = parameter
            elif name in moving:
                self._rounded[name] = parameter
                self._parameters[name] = self._exact(parameter)
        self._versions = self._current_versions()

    def activate(self, rows: Rows | None = None) -> None:
        """Nothing to do: the copy is the whole tuning."""

    def deactivate(self) -> None:
        """Nothing to do."""

    def detach(self) -> None:
        self._copy = None
        self._parameters, self._rounded, self._versions = {}, {}, {}

    @property
    def changed_layers(self) -> list[str]:
        return [path for path in linear_layers(self._base) if f"{path}.weight" in self._parameters]

    @torch.no_grad()
    def weight_changes(self) -> Iterator[Change]:
        """W' - W of what the copy computes with; what moves besides linear layers is in no LoRA."""
        self._round()
        layers, before = linear_layers(self._base), dict(self._base.named_parameters())
        for name in self._parameters:
            path, _, kind = name.rpartition(".")
            moved = self._rounded.get(name, self._parameters[name])
            difference = moved.detach().float() - before[name].float()
            if path not in layers or kind != "weight":
                yield Change(difference)
            else:
                yield Change(difference.T if isinstance(layers[path], Conv1D) else difference, path)

    def inputs(self, chunk: Chunk) -> Inputs:
        self._round()
        return plain_inputs(chunk)

    def merged(self) -> PreTrainedModel:
        """See `MergeableTuning`: the copy is it."""
        self._round()
        assert self._copy is not None, "attached before merged"
        return self._copy

    def load(self, folder: Path) -> None:
        super().load(folder)
        self._round()

    def _saved(self) -> Mapping[str, Tensor]:
        self._round()
        return {**self._parameters, **self._rounded}

    def _exact(self, rounded: nn.Parameter) -> nn.Parameter:
        """The float32 parameter beside `rounded`, which gets the gradients of `rounded`."""
        exact = nn.Parameter(rounded.detach().float())

        def take_gradient(rounded: Tensor) -> None:
            assert rounded.grad is not None
            gradient = rounded.grad.float()
            exact.grad = gradient if exact.grad is None else exact.grad + gradient
            rounded.grad = None
            self._moved = True

        rounded.register_post_accumulate_grad_hook(take_gradient)  # type: ignore[no-untyped-call]
        return exact

    @torch.no_grad()
    def _round(self) -> None:
        """Gives the copy the values of the parameters, where they have changed since."""
        versions = self._current_versions()
        if self._moved or versions != self._versions:
            for name, rounded in self._rounded.items():
                rounded.copy_(self._parameters[name])
        self._versions, self._moved = versions, False

    def _current_versions(self) -> dict[str, int]:
        """A number for each parameter that torch raises when it is changed in place."""
        return {name: self._parameters[name]._version for name in self._rounded}
