"""Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685): y = W x + (alpha / r) B A dropout(x), W frozen.

With `use_dora`, DoRA (Liu et al., 2024, arXiv 2402.09353): y = m * V x / |V| with V = W + (alpha / r) B A; the
norms, one per output, have no gradient (section 4.3 there), and m is initially |W|.

With `init="pissa"`, PiSSA (Meng et al., 2024, arXiv 2404.02948): s B0 A0 is the best approximation of W of rank r, with
s = alpha / r. There W - s B0 A0 takes the place of W; a base that others share stays as it is, so here
y = W x + s (B A - B0 A0) x, which is one ordinary adapter of rank 2r: [B, -B0] [A; A0].
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils.other import get_pattern_key
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.domain.json import JsonObject
from service.recipes.tunings.lora import LoraSettings
from workers.tunings.base import TUNINGS, AdapterMismatch
from workers.tunings.peft_layers import FLOAT_BYTES, PeftLayers, chosen_layers, sizes, targeted, transposed
from workers.tunings.sites import Onto
from workers.tunings.weight_changes import Change, Product, weights_OI

PARAM = "tuning.lora.target_modules"
INITS = {True: "default", "gaussian": "gaussian"}  # by PEFT's `init_lora_weights`; others change the base's weights
# Of the fast decomposition (section 3 there); its error only moves where A and B begin, never what the base answers.
PISSA_ITERATIONS = 16
PISSA_OVERSAMPLING = 8  # beyond twice the rank


@TUNINGS.of(LoraSettings)
class LoraTuning(PeftLayers):
    """A `Tuning`: matrices A and B at chosen linear layers. B is initially 0: no change before the first step."""

    def __init__(self, model: PreTrainedModel, name: str, settings: LoraSettings) -> None:
        super().__init__(model, name)
        self._settings = settings

    @staticmethod
    def settings_of(config: JsonObject) -> LoraSettings:
        """The tuning's settings from a saved adapter's config; PiSSA's is that of the ordinary adapter that it saves.

        Raises AdapterMismatch.
        """
        init = INITS.get(config.get("init_lora_weights", True))
        if init is None:
            raise AdapterMismatch(f"It belongs to changed weights (init_lora_weights {config['init_lora_weights']!r}).")
        return LoraSettings(
            r=config["r"],
            alpha=config["lora_alpha"],
            dropout=config["lora_dropout"],
            target_modules=config["target_modules"],
            use_dora=config["use_dora"],
            use_rslora=config.get("use_rslora") or False,
            init=init,
            rank_pattern=config.get("rank_pattern") or {},
            alpha_pattern=config.get("alpha_pattern") or {},
        )

    def configuration(self) -> LoraConfig:
        """Raises JobError if a target module is not among the base's linear layers."""
        settings, targets = self._settings, chosen_layers(self.model, self._settings.target_modules, PARAM)
        _require_layers(self.model, targets, "rank_pattern", settings.rank_pattern)
        _require_layers(self.model, targets, "alpha_pattern", settings.alpha_pattern)
        ranks = settings.saved_ranks
        # the scale stays:  alpha / r = 2 alpha / 2r,  and with rsLoRA  alpha / sqrt(r) = sqrt(2) alpha / sqrt(2r)
        alphas = math.sqrt(ranks) if settings.use_rslora else ranks
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.r * ranks,
            lora_alpha=_whole(settings.alpha * alphas),
            lora_dropout=settings.dropout,
            target_modules=targets,
            fan_in_fan_out=transposed(self.model, targets),
            use_dora=settings.use_dora,
            use_rslora=settings.use_rslora,
            init_lora_weights="gaussian" if settings.init == "gaussian" else True,
            rank_pattern={name: rank * ranks for name, rank in settings.rank_pattern.items()},
            alpha_pattern={name: _whole(alpha * alphas) for name, alpha in settings.alpha_pattern.items()},
        )

    def attach(self) -> None:
        """Raises JobError if a target module is not among the base's linear layers."""
        super().attach()
        if self._settings.init == "pissa":
            self._start_at_the_principal_part()
        if self._settings.use_dora:
            self._start_at_the_bases_norms()

    def memory_bytes(self) -> int:
        settings, targets = self._settings, chosen_layers(self.model, self._settings.target_modules, PARAM)
        numbers = 0
        for path, layer in targeted(self.model, targets).items():
            num_inputs, num_outputs = sizes(layer)
            rank = settings.rank_pattern.get(get_pattern_key(list(settings.rank_pattern), path), settings.r)
            numbers += rank * settings.saved_ranks * (num_inputs + num_outputs)
            numbers += num_outputs if settings.use_dora else 0
        return numbers * FLOAT_BYTES

    def onto(self, layer: nn.Module) -> Onto | None:
        assert isinstance(layer, LoraLayer)
        if self._settings.use_dora:
            return None
        a_RI, b_OR = layer.lora_A[self._name].weight, layer.lora_B[self._name].weight
        scaling = layer.scaling[self._name]
        assert isinstance(a_RI, Tensor) and isinstance(b_OR, Tensor)

        def add(
            x: Tensor, y: Tensor
        ) -> Tensor:  # no dropout: rows have different adapters only when nothing is trained
            added: Tensor = y + F.linear(F.linear(x.float(), a_RI), b_OR) * scaling
            return added.to(y.dtype)

        return add

    @torch.no_grad()
    def weight_changes(self) -> Iterator[Change]:
        """W' - W = (s B) A with the layer's scale s; with DoRA  m * V / |V| - W  with  V = W + s B A."""
        for path, layer in self.by_path:
            assert isinstance(layer, LoraLayer)
            a_RI, b_OR = layer.lora_A[self._name].weight, layer.lora_B[self._name].weight
            assert isinstance(a_RI, Tensor) and isinstance(b_OR, Tensor)
            product = Product(layer.scaling[self._name] * b_OR, a_RI.detach())
            if not self._settings.use_dora:
                yield Change(product, path)
                continue
            weights = weights_OI(layer)
            moved, magnitude = weights + product.b_OR @ a_RI, layer.lora_magnitude_vector[self._name].weight
            assert isinstance(magnitude, Tensor)
            yield Change((magnitude / torch.linalg.norm(moved, dim=1))[:, None] * moved - weights, path)

    @torch.no_grad()
    def _start_at_the_principal_part(self) -> None:
        """A = A0 and B = B0 in the first half, A0 and -B0 in the second, which never gets a gradient."""
        for layer in self.layers:
            assert isinstance(layer, LoraLayer)
            a, b, weight = layer.lora_A[self._name].weight, layer.lora_B[self._name].weight, layer.weight
            assert isinstance(a, nn.Parameter) and isinstance(b, nn.Parameter) and isinstance(weight, Tensor)
            weight_OI = (weight.T if layer.fan_in_fan_out else weight).float()
            rank = layer.r[self._name] // 2
            known = min(rank, *weight_OI.shape)  # a layer of a lower rank has no more: the rest begins at zero
            sampled = min(2 * rank + PISSA_OVERSAMPLING, *weight_OI.shape)
            parts = torch.svd_lowrank(weight_OI, q=sampled, niter=PISSA_ITERATIONS)
            u_OR, s_R, v_IR = (part[..., :known] for part in parts)
            # s B0 A0 = U S V^T  with  A0 = sqrt(S / s) V^T,  B0 = U sqrt(S / s)
            root_R = (s_R / layer.scaling[self._name]).sqrt()
            a.zero_()
            b.zero_()
            for begin, sign in ((0, 1.0), (rank, -1.0)):
                a[begin : begin + known] = root_R[:, None] * v_IR.T
                b[:, begin : begin + known] = sign * u_OR * root_R
            moving_R = torch.arange(2 * rank, device=a.device) < rank
            a.register_hook(_moving(moving_R[:, None]))  # type: ignore[no-untyped-call]
            b.register_hook(_moving(moving_R))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _start_at_the_bases_norms(self) -> None:
        """PEFT keeps them in the base's type; rounded to bfloat16 they would change the base before the first step."""
        for layer in self.layers:
            assert isinstance(layer, LoraLayer)
            weight, magnitude = layer.weight, layer.lora_magnitude_vector[self._name].weight
            assert isinstance(weight, Tensor) and isinstance(magnitude, Tensor)
            weights_of_output = weight.T if layer.fan_in_fan_out else weight
            magnitude.copy_(torch.linalg.norm(weights_of_output.float(), dim=1))


def _require_layers(model: PreTrainedModel, targets: list[str], setting: str, names: Iterable[str]) -> None:
    """Raises JobError for a name in a pattern that none of the tuned layers has: it would change nothing."""
    paths = list(targeted(model, targets))
    unknown = sorted(name for name in names if not any(f".{path}".endswith(f".{name}") for path in paths))
    if unknown:
        raise JobError(
            "invalid_target_modules",
            f"None of the tuned layers is called {', '.join(unknown)}; their names end with: "
            f"{', '.join(sorted(targets))}.",
            param=f"tuning.lora.{setting}",
        )


def _moving(kept: Tensor) -> Callable[[Tensor], Tensor]:
    """A gradient that is zero where `kept` is not: Adam without weight decay then changes no bit there."""
    return lambda gradient: torch.where(kept, gradient, 0.0)


def _whole(alpha: float) -> Any:
    """An int if it is whole, as PEFT and vLLM declare it; both divide it by the rank, so a fraction works too."""
    return int(alpha) if float(alpha).is_integer() else alpha
