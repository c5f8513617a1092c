"""Tunings that PEFT does not have: a few named parameters, saved in files of PEFT's names with a type of our own.

The configuration is the tuning's settings, so no other tool takes it for something that it knows.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from service.recipes.tuning import TuningSettings
from workers.tunings.base import Chunk, Inputs, plain_inputs, take_over
from workers.tunings.files import read_weights, write_adapter
from workers.tunings.sites import Rows


class OwnFormat(ABC):
    """A `Tuning` except for what it does to the base."""

    num_virtual_tokens: ClassVar[int] = 0

    def __init__(self, model: PreTrainedModel, name: str, settings: TuningSettings) -> None:
        self._base = model
        self._stored = settings
        self._parameters: dict[str, nn.Parameter] = {}

    @property
    def model(self) -> PreTrainedModel:
        return self._base

    @abstractmethod
    def memory_bytes(self) -> int:
        """See `Tuning`."""

    @abstractmethod
    def attach(self) -> None:
        """See `Tuning`."""

    @abstractmethod
    def activate(self, rows: Rows | None = None) -> None:
        """See `Tuning`."""

    @abstractmethod
    def deactivate(self) -> None:
        """See `Tuning`."""

    @abstractmethod
    def detach(self) -> None:
        """See `Tuning`."""

    def train(self, training: bool) -> None:  # noqa: B027  most have no dropout
        """Nothing to do: no dropout."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._parameters

    def inputs(self, chunk: Chunk) -> Inputs:
        return plain_inputs(chunk)

    def save(self, folder: Path, base_source: str) -> None:
        config = {
            "peft_type": self._stored.peft_type,
            "base_model_name_or_path": base_source,
            **self._stored.model_dump(),
        }
        write_adapter(folder, config, self._saved())

    def load(self, folder: Path) -> None:
        take_over(self._parameters, read_weights(folder))

    def _saved(self) -> Mapping[str, Tensor]:
        return self._parameters
