"""(IA)^3 (Liu et al., 2022, arXiv 2205.05638): y = l * (W x), and y = W (l * x) before a feed-forward's last layer."""

from collections.abc import Iterator

from peft import IA3Config
from peft.tuners.ia3 import IA3Layer
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEEDFORWARD
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as TARGETS
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.domain.json import JsonObject
from service.recipes.tunings.ia3 import Ia3Settings
from workers.tunings.base import TUNINGS
from workers.tunings.peft_layers import FLOAT_BYTES, PeftLayers, linear_layers, sizes, targeted, transposed
from workers.tunings.sites import Onto
from workers.tunings.weight_changes import Change, bias_O, weights_OI


@TUNINGS.of(Ia3Settings)
class Ia3Tuning(PeftLayers):
    """A `Tuning`: one factor per output or input of chosen linear layers, initially 1."""

    def __init__(self, model: PreTrainedModel, name: str, settings: Ia3Settings) -> None:
        super().__init__(model, name)
        self._settings = settings

    @staticmethod
    def settings_of(config: JsonObject) -> Ia3Settings:
        """The tuning's settings from a saved adapter's config."""
        return Ia3Settings(
            target_modules=config["target_modules"], feedforward_modules=config["feedforward_modules"] or []
        )

    def configuration(self) -> IA3Config:
        """Raises JobError if a target module is not among the base's linear layers."""
        targets, feedforward = self._modules()
        return IA3Config(
            task_type="CAUSAL_LM",
            target_modules=targets,
            feedforward_modules=feedforward,
            fan_in_fan_out=transposed(self.model, targets),
        )

    def memory_bytes(self) -> int:
        targets, feedforward = self._modules()
        before = targeted(self.model, feedforward)
        factors = (sizes(layer)[path not in before] for path, layer in targeted(self.model, targets).items())
        return sum(factors) * FLOAT_BYTES

    def onto(self, layer: nn.Module) -> Onto | None:
        assert isinstance(layer, IA3Layer)
        if layer.is_feedforward:
            return None  # its factors apply before the product with the weights
        factors = layer.ia3_l[self._name].flatten()

        def scale(x: Tensor, y: Tensor) -> Tensor:
            scaled: Tensor = y * factors
            return scaled.to(y.dtype)

        return scale

    def weight_changes(self) -> Iterator[Change]:
        """y = l * (W x + c):  W' - W = diag(l - 1) W, and (l - 1) c of the bias;  y = W (l * x):  W diag(l - 1)."""
        for path, layer in self.by_path:
            assert isinstance(layer, IA3Layer)
            above_one = layer.ia3_l[self._name].detach().flatten() - 1
            weights, bias = weights_OI(layer), bias_O(layer)
            if layer.is_feedforward:
                yield Change(weights * above_one, path)
                continue
            yield Change(above_one[:, None] * weights, path)
            if bias is not None:
                yield Change(above_one * bias)

    def _modules(self) -> tuple[list[str], list[str]]:
        """The target modules, and those of them whose inputs are scaled."""
        architecture = self.model.config.get_text_config().model_type
        wanted = self._settings.target_modules
        if wanted == "auto":  # PEFT knows some layers by names from before transformers fused them (Mixtral's experts)
            wanted = [target for target in TARGETS.get(architecture, []) if targeted(self.model, [target])]
        unknown = sorted(target for target in wanted if not targeted(self.model, [target]))
        if unknown or not wanted:
            offered = sorted({path.rpartition(".")[2] for path in linear_layers(self.model)})
            raise JobError(
                "invalid_target_modules",
                f"The base has no {', '.join(unknown) or 'default modules for (IA)^3'}; choose from: "
                f"{', '.join(offered)}.",
                param="tuning.ia3.target_modules",
            )
        feedforward = self._settings.feedforward_modules
        if feedforward == "auto":
            known = [f".{path}" for path in FEEDFORWARD.get(architecture, [])]
            feedforward = [target for target in wanted if any(path.endswith(f".{target}") for path in known)]
        foreign = sorted(set(feedforward) - set(wanted))
        if foreign:
            raise JobError(
                "invalid_target_modules",
                f"Not among the job's target_modules: {', '.join(foreign)}; add it there, or remove it here.",
                param="tuning.ia3.feedforward_modules",
            )
        return sorted(wanted), sorted(feedforward)
