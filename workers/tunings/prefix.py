"""Prefix tuning (Li and Liang, 2021, arXiv 2101.00190): P learned keys and values in each layer, before the input's.

Touches no module of the base: they are put into the cache that the input continues. They are initially the base's own
keys and values of some tokens (section 7.4 there: better than random numbers), so the first step starts from the base
after these tokens. The file is PEFT's, whose rows hold a position's keys and values of all layers.
Shapes: B rows, T tokens, P virtual tokens, L layers, D heads of keys and values (HEADS) times their width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from peft import PrefixTuningConfig
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from service.domain.errors import JobError
from service.domain.json import JsonObject
from service.recipes.tunings.prefix import PrefixSettings
from workers.tunings.base import TUNINGS, Chunk, Inputs, plain_inputs, take_over
from workers.tunings.files import read_weights, write_adapter
from workers.tunings.sites import Rows
from workers.tunings.virtual_tokens import first_tokens

PREFIX = "prompt_embeddings"  # PEFT's name in the file


@dataclass(frozen=True)
class Shape:
    """What the base caches of one token: the same in each layer."""

    num_layers: int
    num_heads: int
    head_size: int

    @property
    def numbers(self) -> int:
        return self.num_layers * 2 * self.num_heads * self.head_size


@TUNINGS.of(PrefixSettings)
class PrefixTuning:
    """A `Tuning`: one matrix with a row for each of P positions."""

    mixes_rows: ClassVar[bool] = True  # it acts through the cache of its own rows only

    def __init__(self, model: PreTrainedModel, name: str, settings: PrefixSettings) -> None:
        self._model = model
        self._settings = settings
        self._parameters: dict[str, nn.Parameter] = {}

    @staticmethod
    def settings_of(config: JsonObject) -> PrefixSettings:
        """The tuning's settings from a saved adapter's config, which does not say where the prefix began."""
        return PrefixSettings(num_virtual_tokens=config["num_virtual_tokens"])

    @property
    def num_virtual_tokens(self) -> int:
        return self._settings.num_virtual_tokens

    @property
    def model(self) -> PreTrainedModel:
        return self._model

    def memory_bytes(self) -> int:
        return self.num_virtual_tokens * self._shape.numbers * torch.float32.itemsize

    def attach(self) -> None:
        """Raises JobError for a base whose layers do not all cache keys and values of one shape."""
        shape, ids_P = self._shape, first_tokens(self._model, self._settings)
        if ids_P is None:
            rows_PN = torch.randn(self.num_virtual_tokens, shape.numbers).to(self._model.device)
        else:
            rows_PN = self._cached(ids_P)
        self._parameters = {PREFIX: nn.Parameter(rows_PN)}

    def activate(self, rows: Rows | None = None) -> None:
        """Nothing to do: `inputs` is the whole tuning."""

    def deactivate(self) -> None:
        """Nothing to do."""

    def detach(self) -> None:
        self._parameters = {}

    def train(self, training: bool) -> None:
        """Nothing to do: no dropout."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._parameters

    def inputs(self, chunk: Chunk) -> Inputs:
        plain = plain_inputs(chunk)
        if chunk.offset:
            return plain  # the prefix is already in the cache
        num_rows = len(chunk.input_ids_BT)
        if chunk.attention_mask_BT is not None:
            prefix_mask_BP = chunk.attention_mask_BT.new_ones(num_rows, self.num_virtual_tokens)
            plain.tensors["attention_mask"] = torch.cat([prefix_mask_BP, chunk.attention_mask_BT], dim=1)
        return Inputs(plain.tensors, cache=self._cache(num_rows))

    def save(self, folder: Path, base_source: str) -> None:
        shape = self._shape
        config = PrefixTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=self.num_virtual_tokens,
            num_transformer_submodules=1,
            token_dim=shape.num_heads * shape.head_size,
            num_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            base_model_name_or_path=base_source,
            inference_mode=True,
        )
        write_adapter(folder, config.to_dict(), self._parameters)

    def load(self, folder: Path) -> None:
        take_over(self._parameters, read_weights(folder))

    def _cache(self, num_rows: int) -> DynamicCache:
        """softmax(q [P_k; k]^T / sqrt(d)) [P_v; v]: what each row's tokens attend to before themselves."""
        shape = self._shape
        rows_PN = self._parameters[PREFIX].to(self._model.dtype)
        states = rows_PN.view(-1, shape.num_layers, 2, shape.num_heads, shape.head_size).permute(1, 2, 3, 0, 4)
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(states):
            cache.update(keys.expand(num_rows, -1, -1, -1), values.expand(num_rows, -1, -1, -1), layer)
        return cache

    def _cached(self, ids_P: Tensor) -> Tensor:
        """rows_PN: the base's own keys and values of these tokens, at the first positions of a text."""
        layers = _cached_layers(self._model, ids_P)
        states = torch.stack([torch.stack(keys_and_values) for keys_and_values in layers])[:, :, 0]
        return states.permute(3, 0, 1, 2, 4).flatten(1).float()

    @cached_property
    def _shape(self) -> Shape:
        """As the base itself caches one token: configurations say it in many ways. Raises JobError."""
        layers = _cached_layers(self._model, torch.zeros(1, dtype=torch.int64, device=self._model.device))
        shapes = {tuple(states.shape) for keys_and_values in layers for states in keys_and_values}
        if len(shapes) != 1:
            raise JobError(
                "unsupported_base",
                "Prefix tuning needs a base whose layers all cache keys and values of one shape; this one has "
                f"{len(shapes)}. Choose another tuning.",
                param="tuning.type",
            )
        _, num_heads, _, head_size = shapes.pop()
        return Shape(len(layers), num_heads, head_size)


@torch.no_grad()
def _cached_layers(model: PreTrainedModel, ids_P: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of one row, of the shape 1, heads, positions, width; of the layers that have any."""
    cache = DynamicCache()
    ids_1P = ids_P[None]
    model.base_model(input_ids=ids_1P, attention_mask=torch.ones_like(ids_1P), past_key_values=cache, use_cache=True)
    return [
        (layer.keys, layer.values)
        for layer in cache.layers
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
    ]
