"""The interface of a tuning: its parameters, where they are in the base, and how they are saved and loaded.

Shapes: B rows, T tokens.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from service.domain.json import JsonObject
from service.recipes.implementations import Implementations
from service.recipes.tuning import TuningSettings
from workers.tunings.sites import Rows, untouched

Moves = Callable[[str], bool]  # whether a parameter is trained, by its name in the base


class AdapterMismatch(Exception):
    """Saved weights do not fit this base or this tuning; the message says why."""


@dataclass(frozen=True)
class Chunk:
    """Input tokens of the base: whole rows or a part of their prompts, padded on the right.

    Token t of every row has the position `offset + t` in its row; virtual tokens do not count.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor | None  # None: no padding
    prompt_lengths_B: Tensor  # int64: the position of the first token to be trained or generated; what depends on it
    #   says so in `TuningSettings.edits_prompts`
    offset: int = 0  # tokens of each row that are already in the cache
    begins_B: Tensor | None = None  # int64: where each row begins among all tokens, if the base gets them as one row


@dataclass(frozen=True)
class Inputs:
    """The base's forward arguments for a chunk."""

    tensors: dict[str, Tensor]
    num_before: int = 0  # outputs before those of the tokens
    cache: DynamicCache | None = None  # what the tokens attend to besides themselves; only if `offset` is 0


class Tuning(Protocol):
    """One set of parameters beside, inside or instead of parts of a frozen base, which may have several at a time.

    Life cycle: attach, any number of (activate, use, deactivate), detach. Several may be active at a time only if each
    has its own rows.
    """

    @property
    def model(self) -> PreTrainedModel:
        """The model that computes with this tuning: the shared base, or once attached a private copy that shares the
        frozen parameters with it (`private_copy`)."""
        ...

    @property
    def mixes_rows(self) -> bool:
        """Whether its rows may share a batch with rows of the base and of other tunings: `activate` then accepts rows.

        False for every tuning with a private copy. If False, its rows are decoded in a batch of their own.
        """
        ...

    @property
    def num_virtual_tokens(self) -> int:
        """The number of positions of the base's context that it takes."""
        ...

    def memory_bytes(self) -> int:
        """The memory that `attach` will allocate for parameters, known before. Raises JobError as `attach` does."""
        ...

    def attach(self) -> None:
        """Creates the parameters from torch's global generator; inactive. The base is unchanged if it raises."""
        ...

    def activate(self, rows: Rows | None = None) -> None:
        """Until `deactivate`, `model` computes these rows of a batch with this tuning; None is all of them."""
        ...

    def deactivate(self) -> None:
        """The base then computes without this tuning. May be called twice."""
        ...

    def detach(self) -> None:
        """Removes the tuning from the base completely. May be called twice."""
        ...

    def train(self, training: bool) -> None:
        """Switches the tuning's own dropout; the base always stays in eval mode."""
        ...

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The trained parameters by their names in the saved file."""
        ...

    def inputs(self, chunk: Chunk) -> Inputs:
        """The arguments of `model` for these tokens while the tuning is active.

        Called for every chunk of a prompt and every training batch; not for generated tokens, which follow one by one
        with the cache of the prompt.
        """
        ...

    def save(self, folder: Path, base_source: str) -> None:
        """Writes PEFT's `adapter_config.json` and `adapter_model.safetensors`; equal parameters, equal bytes."""
        ...

    def load(self, folder: Path) -> None:
        """Copies the weights of a saved folder into the parameters. Raises AdapterMismatch."""
        ...


@runtime_checkable
class MergeableTuning(Protocol):
    """A tuning that is a difference of the base's weights (`TuningSettings.merges`)."""

    def merged(self) -> PreTrainedModel:
        """A model of the base's own architecture that computes as the base does with the tuning.

        It takes the base's place: neither the tuning nor the base's other tunings can be used afterwards.
        """
        ...


class TuningClass(Protocol):
    """The class of a tuning, which creates it."""

    def __call__(self, model: PreTrainedModel, name: str, settings: Any) -> Tuning:
        """`settings` has the class that the tuning is registered for."""
        ...

    def settings_of(self, config: JsonObject) -> TuningSettings:
        """The settings from a saved adapter's configuration."""
        ...


# By the class of their settings; each tuning has the decorator `@TUNINGS.of(SomeSettings)`.
TUNINGS: Implementations[TuningClass] = Implementations("workers.tunings")


def take_over(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copies `tensors` into the parameters of the same names. Raises AdapterMismatch before any change."""
    if parameters.keys() != tensors.keys():
        different = ", ".join(sorted(parameters.keys() ^ tensors.keys())[:3])
        raise AdapterMismatch(f"The saved adapter and this tuning have different parameters, such as: {different}.")
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            saved, here = tuple(tensors[name].shape), tuple(parameter.shape)
            raise AdapterMismatch(f"The saved '{name}' has the shape {saved}; this tuning needs {here}.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def plain_inputs(chunk: Chunk) -> Inputs:
    """The tokens as inputs of the base without a tuning."""
    tensors = {"input_ids": chunk.input_ids_BT}
    return Inputs(tensors if chunk.attention_mask_BT is None else tensors | {"attention_mask": chunk.attention_mask_BT})


def num_bytes(parameters: Iterable[Tensor]) -> int:
    """The memory of these tensors in bytes."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def private_copy(model: PreTrainedModel, moves: Moves) -> PreTrainedModel:
    """A copy of the untouched base, for a tuning that trains the base's own weights. Ties between parameters are kept.

    Only the parameters that move are copied, and may be trained; all others, and all buffers, are the base's own
    tensors. Deleting the copy frees its memory.
    """
    with untouched(model):
        frozen = [parameter for name, parameter in model.named_parameters() if not moves(name)]
        copied = copy.deepcopy(model, {id(tensor): tensor for tensor in [*frozen, *model.buffers()]})
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(moves(name))
    return copied


def private_bytes(model: PreTrainedModel, moves: Moves) -> int:
    """The memory that `private_copy` takes for parameters."""
    return num_bytes(parameter for name, parameter in model.named_parameters() if moves(name))
