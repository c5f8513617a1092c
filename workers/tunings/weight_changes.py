"""What a tuning does to the weights of the base's linear layers, for those tunings that do it: W' - W, layer by layer.

From it follows a LoRA that engines can serve instead of the tuning (`workers.tunings.lora_form`).
Shapes: O outputs, I inputs, R rank; whatever a layer's own way to store them, a matrix of weights here is (O, I).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Product:
    """A change of weights that is known as B A."""

    b_OR: Tensor
    a_RI: Tensor


Difference = Tensor | Product


@dataclass(frozen=True)
class Change:
    """`difference` is W' - W of the linear layer at `path`; without a path, of other parameters, in any shape."""

    difference: Difference
    path: str | None = None


@runtime_checkable
class WeightChanging(Protocol):
    """A `Tuning` that computes what its base would with other weights, when it is attached."""

    @property
    def changed_layers(self) -> list[str]:
        """The paths of the linear layers whose weights it changes."""
        ...

    def weight_changes(self) -> Iterator[Change]:
        """All that it changes, one after another: together they may be as large as the base."""
        ...


def weights_OI(layer: nn.Module) -> Tensor:
    """The weights of a linear layer of the base, or of the one that PEFT's layer wraps."""
    original = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    weight = original.weight
    assert isinstance(weight, Tensor)
    return (weight.T if isinstance(original, Conv1D) else weight).detach().float()


def bias_O(layer: nn.Module) -> Tensor | None:
    """The same of its bias; None where it has none."""
    original = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    bias = original.bias
    return bias.detach().float() if isinstance(bias, torch.Tensor) else None
