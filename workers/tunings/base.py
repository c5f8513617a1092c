"""What every tuning is: some parameters, where they sit in the base, and how they reach a file and come back.

Shapes: B rows, T tokens.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.recipes.implementations import Implementations
from service.recipes.tuning import TuningSettings


class AdapterMismatch(Exception):
    """Saved weights do not fit this base or this tuning; the message says where."""


class Tuning(Protocol):
    """One set of parameters beside (or inside) a frozen base. Several may be attached to one base at a time.

    Life: attach, any number of (activate, use, deactivate), detach. At most one tuning of a base is active at a time.
    """

    @property
    def shares_base(self) -> bool:
        """Whether the base's own weights stay as they are, so that other tunings can use it in between."""
        ...

    @property
    def num_virtual_tokens(self) -> int:
        """How many positions `inputs` puts before the tokens; the outputs have them too."""
        ...

    def attach(self) -> None:
        """Makes the parameters, drawn from torch's global generator; inactive. Leaves no trace when it raises."""
        ...

    def activate(self) -> None:
        """From here to `deactivate`, the base computes with this tuning."""
        ...

    def deactivate(self) -> None:
        """The base computes as if this tuning were not there. May be called twice."""
        ...

    def detach(self) -> None:
        """Removes every trace from the base. May be called twice."""
        ...

    def train(self, training: bool) -> None:
        """Switches the tuning's own dropout; the base stays in eval mode always."""
        ...

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What moves, by its name in the saved file."""
        ...

    def inputs(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> dict[str, Tensor]:
        """The base's forward arguments for these tokens while the tuning is active."""
        ...

    def save(self, folder: Path, base_source: str) -> None:
        """Writes PEFT's `adapter_config.json` and `adapter_model.safetensors`; equal parameters give equal bytes."""
        ...

    def load(self, folder: Path) -> None:
        """Takes over the weights of a saved folder. Raises AdapterMismatch."""
        ...


class TuningClass(Protocol):
    """How a tuning is made: by its class."""

    def __call__(self, model: PreTrainedModel, name: str, settings: Any) -> Tuning:
        """`settings` are of the class that the tuning implements."""
        ...

    def settings_of(self, config: dict[str, Any]) -> TuningSettings:
        """The settings from a saved adapter's configuration."""
        ...


# By the class of their settings; each has the decorator `@TUNINGS.of(SomeSettings)`.
TUNINGS: Implementations[TuningClass] = Implementations("workers.tunings")


def take_over(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copies `tensors` into the parameters of the same names. Raises AdapterMismatch before anything is changed."""
    if parameters.keys() != tensors.keys():
        different = ", ".join(sorted(parameters.keys() ^ tensors.keys())[:3])
        raise AdapterMismatch(f"The saved adapter tunes other modules than this tuning, beginning with: {different}.")
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            saved, here = tuple(tensors[name].shape), tuple(parameter.shape)
            raise AdapterMismatch(f"The saved '{name}' has the shape {saved}; this tuning has {here}.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
