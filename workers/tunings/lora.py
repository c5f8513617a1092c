"""Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): y = W x + (alpha / r) B A dropout(x), W frozen."""

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.recipes.tunings.lora import LoraSettings
from workers.tunings.base import TUNINGS
from workers.tunings.peft_layers import PeftLayers, linear_layers, sizes, targeted, transposed
from workers.tunings.sites import Onto

ALL_LINEAR = "all-linear"
FLOAT_BYTES = torch.float32.itemsize


@TUNINGS.of(LoraSettings)
class LoraTuning(PeftLayers):
    """A `Tuning`: matrices A and B at chosen linear layers. B begins at zero: before the first step nothing changes."""

    def __init__(self, model: PreTrainedModel, name: str, settings: LoraSettings) -> None:
        super().__init__(model, name)
        self._settings = settings

    @staticmethod
    def settings_of(config: dict[str, Any]) -> LoraSettings:
        """The tuning's settings from a saved adapter's config."""
        return LoraSettings(
            r=config["r"],
            alpha=config["lora_alpha"],
            dropout=config["lora_dropout"],
            target_modules=config["target_modules"],
        )

    def configuration(self) -> LoraConfig:
        """Raises JobError when a wanted module is not among the base's linear layers."""
        targets = _targets(self.model, self._settings.target_modules)
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self._settings.r,
            lora_alpha=_whole(self._settings.alpha),
            lora_dropout=self._settings.dropout,
            target_modules=targets,
            fan_in_fan_out=transposed(self.model, targets),
        )

    def memory_bytes(self) -> int:
        targets = _targets(self.model, self._settings.target_modules)
        numbers = sum(self._settings.r * sum(sizes(layer)) for layer in targeted(self.model, targets).values())
        return numbers * FLOAT_BYTES

    def onto(self, layer: nn.Module) -> Onto | None:
        assert isinstance(layer, LoraLayer)
        a, b, scaling = layer.lora_A[self._name], layer.lora_B[self._name], layer.scaling[self._name]

        def add(x: Tensor, y: Tensor) -> Tensor:  # rows choose where nothing is trained: no dropout
            added: Tensor = y + b(a(x.float())) * scaling
            return added.to(y.dtype)

        return add


def _targets(model: PreTrainedModel, wanted: str | list[str]) -> list[str]:
    """Names of linear layers to tune, as they stand in every block."""
    offered = {path.rpartition(".")[2] for path in linear_layers(model)}
    chosen = offered if wanted == ALL_LINEAR else set(wanted)
    if not chosen or not chosen <= offered:
        missing = ", ".join(sorted(chosen - offered)) or "linear layers"
        raise JobError(
            "invalid_target_modules",
            f"The base has no {missing}; it offers: {', '.join(sorted(offered))}.",
            param="tuning.lora.target_modules",
        )
    return sorted(chosen)


def _whole(alpha: float) -> Any:
    """An int where it is one, as PEFT and vLLM say it; they divide by the rank, so that a fraction works too."""
    return int(alpha) if float(alpha).is_integer() else alpha
