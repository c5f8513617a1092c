"""MiSS (Kang and Yin, 2024, arXiv 2409.15371): y = W x + D (x_1 + x_2 + ...), the x_i being x in shards of r numbers.

The last shard is filled up with zeros. PEFT keeps D as (r, outputs).
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from peft import MissConfig
from peft.tuners.miss.layer import MissLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from service.domain.json import JsonObject
from service.recipes import tuning as recipes
from service.recipes.tunings.miss import MissSettings
from workers.tunings.base import TUNINGS
from workers.tunings.peft_layers import FLOAT_BYTES, PeftLayers, chosen_layers, sizes, targeted, transposed
from workers.tunings.sites import Onto
from workers.tunings.weight_changes import Change, Product


@TUNINGS.of(MissSettings)
class MissTuning(PeftLayers):
    """A `Tuning`: one matrix D at chosen linear layers, initially 0: no change before the first step."""

    def __init__(self, model: PreTrainedModel, name: str, settings: MissSettings) -> None:
        super().__init__(model, name)
        self._settings = settings

    @staticmethod
    def settings_of(config: JsonObject) -> MissSettings:
        """The tuning's settings from a saved adapter's config."""
        return MissSettings(r=config["r"], dropout=config["miss_dropout"], target_modules=config["target_modules"])

    def configuration(self) -> MissConfig:
        """Raises JobError for target modules that the base has not, or that MiSS cannot tune."""
        return MissConfig(
            task_type="CAUSAL_LM",
            r=self._settings.r,
            miss_dropout=self._settings.dropout,
            target_modules=self._targets(),
        )

    def memory_bytes(self) -> int:
        outputs = [sizes(layer)[1] for layer in targeted(self.model, self._targets()).values()]
        return self._settings.r * sum(outputs) * FLOAT_BYTES

    def onto(self, layer: nn.Module) -> Onto:
        assert isinstance(layer, MissLayer)
        d_RO, rank = layer.miss_block[self._name], self._settings.r

        def add(x: Tensor, y: Tensor) -> Tensor:  # no dropout: rows differ in adapters only when nothing is trained
            filled = F.pad(x, (0, -x.shape[-1] % rank)).to(d_RO.dtype)
            shards = filled.reshape(*x.shape[:-1], -1, rank)
            added: Tensor = y + shards.sum(dim=-2) @ d_RO
            return added.to(y.dtype)

        return add

    def weight_changes(self) -> Iterator[Change]:
        """x_1 + x_2 + ... = E x with E_ki = 1 where i = k modulo r, else 0:  W' - W = D E."""
        for path, layer in self.by_path:
            assert isinstance(layer, MissLayer)
            d_RO, rank = layer.miss_block[self._name].detach(), self._settings.r
            places_I = torch.arange(layer.in_features, device=d_RO.device)
            e_RI = (places_I % rank == torch.arange(rank, device=d_RO.device)[:, None]).to(d_RO.dtype)
            yield Change(Product(d_RO.T, e_RI), path)

    def _targets(self) -> list[str]:
        targets = chosen_layers(self.model, self._settings.target_modules, "tuning.miss.target_modules")
        if transposed(self.model, targets):
            raise JobError(
                "invalid_target_modules",
                "MiSS does not tune layers that store their weights as (in, out), as this base's do; choose another "
                f"tuning, such as {recipes.TUNINGS.default.name}.",
                param="tuning.type",
            )
        narrowest = min(sizes(layer)[0] for layer in targeted(self.model, targets).values())
        if self._settings.r > narrowest:
            raise JobError(
                "invalid_rank",
                f"A chosen layer has {narrowest} inputs, fewer than r, which is {self._settings.r}; give an r of at "
                f"most {narrowest}, or other target_modules.",
                param="tuning.miss.r",
            )
        return targets
