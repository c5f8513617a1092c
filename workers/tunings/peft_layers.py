"""Tunings made of PEFT's layers: each wraps a linear layer of the base in a site, never the layer of another tuning.

PEFT builds the layers on the untouched base with its public `inject_adapter_in_model`, so names, targets and random
numbers are those of PEFT alone on that base, whatever else is attached. Then each layer moves to the site at its path.
A method of PEFT that keeps all its state in its layers needs a subclass with its configuration, and little more.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import torch
from peft import PeftConfig
from peft.functional import cast_adapter_dtype, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from service.domain.errors import JobError
from workers.tunings.base import Chunk, Inputs, plain_inputs, take_over
from workers.tunings.files import read_weights, task_type, write_adapter
from workers.tunings.sites import Onto, Place, Rows, leave, site_at, untouched

ALL_LINEAR = "all-linear"
FLOAT_BYTES = torch.float32.itemsize  # parameters are float32, whatever the base's type


class PeftLayers(ABC):
    """A `Tuning` except for its configuration and its memory."""

    mixes_rows: ClassVar[bool] = True
    num_virtual_tokens: ClassVar[int] = 0

    def __init__(self, model: PreTrainedModel, name: str) -> None:
        self._model = model
        self._name = name
        self._config: PeftConfig | None = None
        self._seats: list[tuple[Place, nn.Module]] = []
        self._paths: list[str] = []  # of the layers, in the order of the seats
        self._parameters: dict[str, nn.Parameter] = {}

    @property
    def model(self) -> PreTrainedModel:
        return self._model

    @abstractmethod
    def memory_bytes(self) -> int:
        """See `Tuning`."""

    @abstractmethod
    def configuration(self) -> PeftConfig:
        """PEFT's configuration for the untouched base. Raises JobError if the settings do not fit it."""

    def inject(self, config: PeftConfig) -> None:
        """Puts PEFT's layers into the untouched base; a method of PEFT with state outside its layers overrides it."""
        inject_adapter_in_model(config, self._model, self._name)

    def onto(self, layer: nn.Module) -> Onto | None:
        """How to compute the layer from the original layer's output, to the same bits as alone; None if impossible."""
        return None

    def attach(self) -> None:
        """Raises JobError if the settings do not fit the base."""
        with untouched(self._model):
            self._config = self.configuration()
            with self._injected(self._config) as layers:
                self._parameters = {
                    _saved_name(name, self._name): parameter
                    for name, parameter in self._model.named_parameters()
                    if _part(self._name).search(name)
                }
        for path, layer in layers.items():
            place = site_at(self._model, path)
            place.site.join(layer, self.onto(layer))
            self._seats.append((place, layer))
            self._paths.append(path)
        self.train(False)

    def activate(self, rows: Rows | None = None) -> None:
        for place, layer in self._seats:
            place.site.choose(layer, rows)

    def deactivate(self) -> None:
        for place, layer in self._seats:
            place.site.release(layer)

    def detach(self) -> None:
        for place, layer in self._seats:
            leave(place, layer)
        self._seats, self._paths, self._parameters = [], [], {}

    def train(self, training: bool) -> None:
        for place, layer in self._seats:
            layer.train(training)
            place.site.original.train(False)

    @property
    def layers(self) -> list[nn.Module]:
        """PEFT's layers, once attached."""
        return [layer for _, layer in self._seats]

    @property
    def by_path(self) -> Iterator[tuple[str, nn.Module]]:
        """PEFT's layers with their paths in the base, once attached."""
        return zip(self._paths, self.layers, strict=True)

    @property
    def changed_layers(self) -> list[str]:
        """See `workers.tunings.weight_changes`: a subclass that gives `weight_changes` needs nothing else."""
        return self._paths

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._parameters

    def inputs(self, chunk: Chunk) -> Inputs:
        return plain_inputs(chunk)

    def saved_config(self, base_source: str) -> dict[str, object]:
        """PEFT's configuration as the file has it."""
        assert self._config is not None, "attached before saved"
        self._config.base_model_name_or_path = base_source
        self._config.inference_mode = True
        self._config.task_type = task_type(self._model)
        config: dict[str, object] = self._config.to_dict()
        return config

    def save(self, folder: Path, base_source: str) -> None:
        write_adapter(folder, self.saved_config(base_source), self._parameters)

    def load(self, folder: Path) -> None:
        take_over(self._parameters, read_weights(folder))

    def merged(self) -> PreTrainedModel:
        """See `MergeableTuning`: PEFT adds each layer's difference to the weights in the layer's own way."""
        for layer in self.layers:
            assert isinstance(layer, BaseTunerLayer)
            weights = layer.get_base_layer().weight
            assert isinstance(weights, nn.Parameter), "weights that are computed at each use take no sum"
            layer.merge(safe_merge=True, adapter_names=[self._name])
        self.detach()
        return self._model

    @contextmanager
    def _injected(self, config: PeftConfig) -> Iterator[dict[str, nn.Module]]:
        """PEFT's layers in the untouched base by their paths; always removed again when the block ends."""
        layers: dict[str, nn.Module] = {}
        try:
            self.inject(config)
            cast_adapter_dtype(self._model, self._name)  # float32, or a bfloat16 base's small updates were rounded off
            layers |= _layers(self._model)
            yield layers
        finally:
            for path, layer in _layers(self._model).items():
                assert isinstance(layer, BaseTunerLayer)
                above, _, child = path.rpartition(".")
                setattr(self._model.get_submodule(above), child, layer.get_base_layer())
            vars(self._model).pop("peft_config", None)  # set by PEFT


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear | Conv1D]:
    """The base's linear layers by their paths, without the output layer."""
    head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    with untouched(model):
        return {
            path: module
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        }


def chosen_layers(model: PreTrainedModel, wanted: str | list[str], param: str) -> list[str]:
    """Last parts of the paths of the linear layers to tune: those in `wanted`, or all names for `all-linear`.

    Raises JobError, which blames `param`, for a name that the base has not.
    """
    paths = list(linear_layers(model))
    offered = {path.rpartition(".")[2] for path in paths}
    chosen = offered if wanted == ALL_LINEAR else set(wanted)
    unknown = {name for name in chosen - offered if not any(f".{path}".endswith(f".{name}") for path in paths)}
    if not chosen or unknown:
        missing = ", ".join(sorted(unknown)) or "linear layers"
        raise JobError(
            "invalid_target_modules",
            f"The base has no {missing}; choose from: {', '.join(sorted(offered))}.",
            param=param,
        )
    return sorted(chosen)


def targeted(model: PreTrainedModel, targets: list[str]) -> dict[str, nn.Linear | Conv1D]:
    """The linear layers whose paths end with one of `targets`, as PEFT matches them."""
    return {
        path: module
        for path, module in linear_layers(model).items()
        if any(f".{path}".endswith(f".{target}") for target in targets)
    }


def transposed(model: PreTrainedModel, targets: list[str]) -> bool:
    """Whether the targets store their weights as (in, out), as GPT-2 does: PEFT's `fan_in_fan_out`."""
    kinds = {isinstance(module, Conv1D) for module in targeted(model, targets).values()}
    if len(kinds) > 1:
        raise JobError(
            "invalid_target_modules",
            "The chosen modules are of two kinds (Linear and Conv1D); choose modules of one kind.",
            param="tuning",
        )
    return kinds == {True}


def sizes(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """The numbers of the layer's inputs and outputs."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.nx, layer.nf


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in model.named_modules() if _of_peft(module)}


def _of_peft(module: nn.Module) -> bool:
    return isinstance(module, BaseTunerLayer)


def _part(name: str) -> re.Pattern[str]:
    return re.compile(rf"\.{name}(?=\.|$)")


def _saved_name(name: str, adapter: str) -> str:
    """PEFT's name in the file for a parameter of an injected layer."""
    # DoRA's vector became a module in PEFT 0.8 and kept its name in files.
    return "base_model.model." + _part(adapter).sub("", name).replace("_magnitude_vector.weight", "_magnitude_vector")
