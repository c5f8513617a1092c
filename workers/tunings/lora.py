"""Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): y = W x + (alpha / r) B A dropout(x), W frozen.

With `use_dora`, DoRA (Liu et al., 2024, arXiv 2402.09353): y = m * V x / |V| with V = W + (alpha / r) B A; the
norms, one per output, have no gradient (section 4.3 there), and m is initially |W|.
"""

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.recipes.tunings.lora import LoraSettings
from workers.tunings.base import TUNINGS
from workers.tunings.peft_layers import FLOAT_BYTES, PeftLayers, linear_layers, sizes, targeted, transposed
from workers.tunings.sites import Onto

ALL_LINEAR = "all-linear"


@TUNINGS.of(LoraSettings)
class LoraTuning(PeftLayers):
    """A `Tuning`: matrices A and B at chosen linear layers. B is initially 0: no change before the first step."""

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
            use_dora=config["use_dora"],
        )

    def configuration(self) -> LoraConfig:
        """Raises JobError if a target module is not among the base's linear layers."""
        targets = _targets(self.model, self._settings.target_modules)
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self._settings.r,
            lora_alpha=_whole(self._settings.alpha),
            lora_dropout=self._settings.dropout,
            target_modules=targets,
            fan_in_fan_out=transposed(self.model, targets),
            use_dora=self._settings.use_dora,
        )

    def attach(self) -> None:
        """Raises JobError if a target module is not among the base's linear layers."""
        super().attach()
        if self._settings.use_dora:
            self._start_at_the_bases_norms()

    def memory_bytes(self) -> int:
        targets = _targets(self.model, self._settings.target_modules)
        shapes = [sizes(layer) for layer in targeted(self.model, targets).values()]
        magnitudes = sum(num_outputs for _, num_outputs in shapes) if self._settings.use_dora else 0
        return (self._settings.r * sum(map(sum, shapes)) + magnitudes) * FLOAT_BYTES

    def onto(self, layer: nn.Module) -> Onto | None:
        assert isinstance(layer, LoraLayer)
        if self._settings.use_dora:
            return None
        a, b, scaling = layer.lora_A[self._name], layer.lora_B[self._name], layer.scaling[self._name]

        def add(
            x: Tensor, y: Tensor
        ) -> Tensor:  # no dropout: rows have different adapters only when nothing is trained
            added: Tensor = y + b(a(x.float())) * scaling
            return added.to(y.dtype)

        return add

    @torch.no_grad()
    def _start_at_the_bases_norms(self) -> None:
        """PEFT keeps them in the base's type; rounded to bfloat16 they would change the base before the first step."""
        for layer in self.layers:
            assert isinstance(layer, LoraLayer)
            weight, magnitude = layer.weight, layer.lora_magnitude_vector[self._name].weight
            assert isinstance(weight, Tensor) and isinstance(magnitude, Tensor)
            weights_of_output = weight.T if layer.fan_in_fan_out else weight
            magnitude.copy_(torch.linalg.norm(weights_of_output.float(), dim=1))


def _targets(model: PreTrainedModel, wanted: str | list[str]) -> list[str]:
    """Names of the linear layers to tune within every block."""
    offered = {path.rpartition(".")[2] for path in linear_layers(model)}
    chosen = offered if wanted == ALL_LINEAR else set(wanted)
    if not chosen or not chosen <= offered:
        missing = ", ".join(sorted(chosen - offered)) or "linear layers"
        raise JobError(
            "invalid_target_modules",
            f"The base has no {missing}; choose from: {', '.join(sorted(offered))}.",
            param="tuning.lora.target_modules",
        )
    return sorted(chosen)


def _whole(alpha: float) -> Any:
    """An int if it is whole, as PEFT and vLLM declare it; both divide it by the rank, so a fraction works too."""
    return int(alpha) if float(alpha).is_integer() else alpha
