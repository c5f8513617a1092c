"""VeRA (Kopiczko et al., 2023, arXiv 2310.11454): y = W x + b * B (d * A dropout(x)); A and B frozen, b and d learned.

A (r, I) and B (O, r) are drawn from a seed as large as the largest chosen layer needs; smaller layers use their first
columns and rows. They are saved with the vectors: a file then means the same wherever random numbers are drawn in
another way. Tunings of the same base that have equal ones share them in memory.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import PeftConfig, VeraConfig, VeraModel
from peft.tuners.vera import VeraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.json import JsonObject
from service.recipes.tunings.vera import VeraSettings
from workers.tunings.base import TUNINGS, AdapterMismatch, take_over
from workers.tunings.files import read_weights, write_adapter
from workers.tunings.peft_layers import FLOAT_BYTES, PeftLayers, chosen_layers, sizes, targeted, transposed
from workers.tunings.sites import Onto, Site
from workers.tunings.weight_changes import Change, Product

PROJECTIONS = ("base_model.vera_A", "base_model.vera_B")  # PEFT's names in the file


@TUNINGS.of(VeraSettings)
class VeraTuning(PeftLayers):
    """A `Tuning`: vectors d and b at chosen linear layers. b is initially 0: no change before the first step."""

    def __init__(self, model: PreTrainedModel, name: str, settings: VeraSettings) -> None:
        super().__init__(model, name)
        self._settings = settings
        self._tuner: VeraModel | None = None  # owns A and B, to which all layers refer

    @staticmethod
    def settings_of(config: JsonObject) -> VeraSettings:
        """The tuning's settings from a saved adapter's config."""
        return VeraSettings(
            r=config["r"],
            dropout=config["vera_dropout"],
            target_modules=config["target_modules"],
            d_initial=config["d_initial"],
            projection_seed=config["projection_prng_key"],
        )

    def configuration(self) -> VeraConfig:
        """Raises JobError if a target module is not among the base's linear layers."""
        targets = self._targets()
        return VeraConfig(
            task_type="CAUSAL_LM",
            r=self._settings.r,
            vera_dropout=self._settings.dropout,
            target_modules=targets,
            d_initial=self._settings.d_initial,
            projection_prng_key=self._settings.projection_seed,
            save_projection=True,
            fan_in_fan_out=transposed(self.model, targets),
        )

    def inject(self, config: PeftConfig) -> None:
        self._tuner = VeraModel(self.model, config, self._name)

    def attach(self) -> None:
        """Raises JobError if a target module is not among the base's linear layers."""
        super().attach()
        self._project(*(one.to(self.model.device) for one in self._projections))

    def detach(self) -> None:
        super().detach()
        self._tuner = None

    def memory_bytes(self) -> int:
        """The projections included, though a neighbour may have them already."""
        shapes = [sizes(layer) for layer in targeted(self.model, self._targets()).values()]
        vectors = sum(self._settings.r + num_outputs for _, num_outputs in shapes)
        most_inputs, most_outputs = (max(numbers) for numbers in zip(*shapes, strict=True))
        numbers: int = vectors + self._settings.r * (most_inputs + most_outputs)
        return numbers * FLOAT_BYTES

    def save(self, folder: Path, base_source: str) -> None:
        projections = dict(zip(PROJECTIONS, self._projections, strict=True))
        write_adapter(folder, self.saved_config(base_source), {**self.parameters(), **projections})

    def load(self, folder: Path) -> None:
        tensors = read_weights(folder)
        try:
            saved = [tensors.pop(name) for name in PROJECTIONS]
        except KeyError as error:
            raise AdapterMismatch(f"The saved adapter has no {error}; save it with PEFT's save_projection.") from error
        for one, other in zip(saved, self._projections, strict=True):
            if one.shape != other.shape:
                raise AdapterMismatch(f"The saved projection has the shape {one.shape}; this base needs {other.shape}.")
        take_over(self.parameters(), tensors)
        self._project(*(one.to(self.model.device) for one in saved))

    def onto(self, layer: nn.Module) -> Onto:
        assert isinstance(layer, VeraLayer)
        d, b = layer.vera_lambda_d[self._name], layer.vera_lambda_b[self._name]

        def add(x: Tensor, y: Tensor) -> Tensor:  # no dropout: rows differ in adapters only when nothing is trained
            projection_a, projection_b = self._projections
            inner = d * F.linear(x.to(d.dtype), projection_a[:, : layer.in_features])
            added: Tensor = y + b * F.linear(inner, projection_b[: layer.out_features, :])
            return added.to(y.dtype)

        return add

    def weight_changes(self) -> Iterator[Change]:
        """y = W x + b * B (d * A x):  W' - W = (diag(b) B) (diag(d) A)."""
        projection_a, projection_b = self._projections
        for path, layer in self.by_path:
            assert isinstance(layer, VeraLayer)
            d_R, b_O = (one[self._name].detach() for one in (layer.vera_lambda_d, layer.vera_lambda_b))
            a_RI, b_OR = projection_a[:, : layer.in_features], projection_b[: layer.out_features, :]
            yield Change(Product(b_O[:, None] * b_OR, d_R[:, None] * a_RI), path)

    @property
    def _projections(self) -> tuple[Tensor, Tensor]:
        assert self._tuner is not None, "attached before used"
        return self._tuner.vera_A[self._name], self._tuner.vera_B[self._name]

    def _project(self, projection_a: Tensor, projection_b: Tensor) -> None:
        """Sets A and B: those of a neighbour where they are equal bit for bit, so that they are held once."""
        assert self._tuner is not None
        for a, b in self._of_neighbours():
            if torch.equal(a, projection_a) and torch.equal(b, projection_b):
                projection_a, projection_b = a, b
                break
        self._tuner.vera_A[self._name], self._tuner.vera_B[self._name] = projection_a, projection_b

    def _of_neighbours(self) -> Iterator[tuple[Tensor, Tensor]]:
        mine = set(self.layers)
        for site in self.model.modules():
            for layer in site.layers if isinstance(site, Site) else ():
                if isinstance(layer, VeraLayer) and layer not in mine:
                    assert layer.vera_A is not None and layer.vera_B is not None
                    yield from ((layer.vera_A[name], layer.vera_B[name]) for name in layer.vera_A)

    def _targets(self) -> list[str]:
        return chosen_layers(self.model, self._settings.target_modules, "tuning.vera.target_modules")
