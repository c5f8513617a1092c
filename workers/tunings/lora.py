"""Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): y = W x + (alpha / r) B A dropout(x), W frozen.

Built on PEFT's layers. The first adapter wraps the base's linear layers in place, further ones join the wrappers, and
the last one to leave unwraps them: the base is then module for module what it was. Shapes: B rows, T tokens.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from peft import LoraConfig
from peft.functional import cast_adapter_dtype, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.recipes.tunings.lora import LoraSettings
from workers.tunings.base import TUNINGS, take_over
from workers.tunings.files import read_weights, write_adapter

ALL_LINEAR = "all-linear"


@TUNINGS.of(LoraSettings)
class LoraTuning:
    """A `Tuning`: matrices A and B at chosen linear layers. B begins at zero: before the first step nothing changes."""

    shares_base: ClassVar[bool] = True
    num_virtual_tokens: ClassVar[int] = 0

    def __init__(self, model: PreTrainedModel, name: str, settings: LoraSettings) -> None:
        self._model = model
        self._name = name
        self._settings = settings
        self._config: LoraConfig | None = None
        self._layers: list[LoraLayer] = []
        self._parameters: dict[str, nn.Parameter] = {}

    @staticmethod
    def settings_of(config: dict[str, Any]) -> LoraSettings:
        """The tuning's settings from a saved adapter's config."""
        return LoraSettings(
            r=config["r"],
            alpha=config["lora_alpha"],
            dropout=config["lora_dropout"],
            target_modules=config["target_modules"],
        )

    def attach(self) -> None:
        """Raises JobError when a wanted module is not among the base's linear layers."""
        self._config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self._settings.r,
            lora_alpha=_whole(self._settings.alpha),
            lora_dropout=self._settings.dropout,
            target_modules=_targets(self._model, self._settings.target_modules),
        )
        try:
            with warnings.catch_warnings():
                # PEFT warns that the model has an adapter already: several at once are what we want.
                warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
                inject_adapter_in_model(self._config, self._model, self._name)
        except BaseException:
            self.detach()
            raise
        cast_adapter_dtype(self._model, self._name)  # float32, whatever the base's type: small updates must not vanish
        self._layers = [layer for _, _, layer in _lora_layers(self._model) if self._name in layer.r]
        self._parameters = {
            f"base_model.model.{name.replace(f'.{self._name}.', '.')}": parameter
            for name, parameter in self._model.named_parameters()
            if f".{self._name}." in name
        }
        self.train(False)
        self.deactivate()

    def activate(self) -> None:
        for layer in self._layers:
            layer.set_adapter([self._name])

    def deactivate(self) -> None:
        for layer in self._layers:
            layer.set_adapter([])

    def detach(self) -> None:
        for parent, child, layer in list(_lora_layers(self._model)):
            layer.set_adapter([])
            layer.delete_adapter(self._name)
            if not layer.r:
                setattr(parent, child, layer.get_base_layer())
        self._layers, self._parameters = [], {}
        configs = getattr(self._model, "peft_config", {})  # put there by PEFT with the first adapter
        if configs.pop(self._name, None) is not None and not configs:
            del self._model.peft_config

    def train(self, training: bool) -> None:
        for layer in self._layers:
            layer.lora_dropout[self._name].train(training)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._parameters

    def inputs(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> dict[str, Tensor]:
        return {"input_ids": input_ids_BT, "attention_mask": attention_mask_BT}

    def save(self, folder: Path, base_source: str) -> None:
        assert self._config is not None, "attached before saved"
        self._config.base_model_name_or_path = base_source
        self._config.inference_mode = True
        write_adapter(folder, self._config, self._parameters)

    def load(self, folder: Path) -> None:
        take_over(self._parameters, read_weights(folder))


def _targets(model: PreTrainedModel, wanted: str | list[str]) -> list[str]:
    """Names of linear layers to tune, as they stand in every block; the output layer is none of them."""
    head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    offered = {
        name.removesuffix(".base_layer").rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and ".lora_" not in name
    }
    chosen = offered if wanted == ALL_LINEAR else set(wanted)
    if not chosen or not chosen <= offered:
        missing = ", ".join(sorted(chosen - offered)) or "linear layers"
        raise JobError(
            "invalid_target_modules",
            f"The base has no {missing}; it offers: {', '.join(sorted(offered))}.",
            param="tuning.lora.target_modules",
        )
    return sorted(chosen)


def _lora_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, LoraLayer]]:
    """Every wrapped layer with its parent and its name there."""
    for parent in model.modules():
        for child, layer in parent.named_children():
            if isinstance(layer, LoraLayer):
                yield parent, child, layer


def _whole(alpha: float) -> Any:
    """An int where it is one, as PEFT and vLLM say it; they divide by the rank, so that a fraction works too."""
    return int(alpha) if float(alpha).is_integer() else alpha
