"""What every tuning is: some parameters, where they sit in the base, and how they reach a file and come back.

Shapes: B rows, T tokens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from service.recipes.implementations import Implementations
from service.recipes.tuning import TuningSettings
from workers.tunings.sites import Rows


class AdapterMismatch(Exception):
    """Saved weights do not fit this base or this tuning; the message says where."""


@dataclass(frozen=True)
class Chunk:
    """Tokens on their way into the base, all of a row or a part of its prompt; rows are padded on the right.

    Token t of every row stands at position `offset + t` of its row; virtual tokens do not count.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor | None  # None: no padding
    prompt_lengths_B: Tensor  # int64: where the prompt ends and what is to be learnt or generated begins
    offset: int = 0  # tokens of each row that the base has seen before and kept in its cache


@dataclass(frozen=True)
class Inputs:
    """The base's forward arguments for a chunk."""

    tensors: dict[str, Tensor]
    num_before: int = 0  # outputs that stand before those of the tokens
    cache: DynamicCache | None = None  # what the tokens attend to besides themselves; only where `offset` is 0


class Tuning(Protocol):
    """One set of parameters beside, inside or instead of parts of a frozen base. Several live on one base at a time.

    Life: attach, any number of (activate, use, deactivate), detach. Several may be active at a time only if each has
    rows of its own.
    """

    @property
    def model(self) -> PreTrainedModel:
        """What computes with this tuning: the shared base, or once attached a private copy that shares all that is
        frozen with it (`private`)."""
        ...

    @property
    def mixes_rows(self) -> bool:
        """Whether its rows may stand in one batch with rows of the base and of other tunings: `activate` takes rows.

        A tuning with a private copy never does. Rows of one that does not are decoded in a batch of their own.
        """
        ...

    @property
    def num_virtual_tokens(self) -> int:
        """How many positions of the base's context it takes."""
        ...

    def memory_bytes(self) -> int:
        """How much `attach` will allocate for parameters, known before it. Raises JobError as `attach` does."""
        ...

    def attach(self) -> None:
        """Makes the parameters, drawn from torch's global generator; inactive. Leaves no trace when it raises."""
        ...

    def activate(self, rows: Rows | None = None) -> None:
        """From here to `deactivate`, `model` computes these rows of a batch with this tuning; None is all of them."""
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

    def inputs(self, chunk: Chunk) -> Inputs:
        """What `model` is called with for these tokens while the tuning is active.

        Asked for every chunk of a prompt and for every training batch; not for generated tokens, which are fed one by
        one into the cache that the prompt has filled.
        """
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


def plain_inputs(chunk: Chunk) -> Inputs:
    """The tokens as the base itself takes them."""
    tensors = {"input_ids": chunk.input_ids_BT}
    return Inputs(tensors if chunk.attention_mask_BT is None else tensors | {"attention_mask": chunk.attention_mask_BT})


def num_bytes(parameters: Iterable[Tensor]) -> int:
    """The memory of these tensors."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
