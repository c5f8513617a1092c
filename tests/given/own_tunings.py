"""Tunings that only tests have, each for one seam: a private copy, a cache, and positions of a prompt's tokens.

They are saved in formats of their own. `offer_own` puts their recipes among those of a process that has read them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from service.recipes.base import EngineKind
from service.recipes.tuning import TUNINGS as RECIPES
from service.recipes.tuning import BaseSize, TuningSettings
from workers.tunings.base import TUNINGS, Chunk, Inputs, num_bytes, plain_inputs, private_bytes, private_copy, take_over
from workers.tunings.files import read_weights, write_adapter
from workers.tunings.sites import Rows


class _OwnSettings(TuningSettings):
    """Nothing to set."""

    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    module: ClassVar[str] = __name__

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        return 1e-2


class LastBlockSettings(_OwnSettings):
    name: ClassVar[str] = "last_block"
    peft_type: ClassVar[str] = "TEST_LAST_BLOCK"


class PrefixSettings(_OwnSettings):
    name: ClassVar[str] = "own_prefix"
    peft_type: ClassVar[str] = "TEST_PREFIX"


class LastOfPromptSettings(_OwnSettings):
    name: ClassVar[str] = "last_of_prompt"
    peft_type: ClassVar[str] = "TEST_LAST_OF_PROMPT"
    edits_prompts: ClassVar[bool] = True


class _Own:
    """What the three have in common: a few parameters in a file."""

    settings_class: ClassVar[type[_OwnSettings]]
    mixes_rows: ClassVar[bool] = True
    num_virtual_tokens: int = 0

    def __init__(self, model: PreTrainedModel, name: str, settings: _OwnSettings) -> None:
        self._base = model
        self._parameters: dict[str, nn.Parameter] = {}

    @classmethod
    def settings_of(cls, config: dict[str, Any]) -> _OwnSettings:
        return cls.settings_class()

    @property
    def model(self) -> PreTrainedModel:
        return self._base

    def memory_bytes(self) -> int:
        return num_bytes(self._new().values())

    def attach(self) -> None:
        self._parameters = self._new()

    def activate(self, rows: Rows | None = None) -> None:
        pass

    def deactivate(self) -> None:
        pass

    def detach(self) -> None:
        self._parameters = {}

    def train(self, training: bool) -> None:
        pass

    def parameters(self) -> Mapping[str, nn.Parameter]:
        return self._parameters

    def inputs(self, chunk: Chunk) -> Inputs:
        return plain_inputs(chunk)

    def save(self, folder: Path, base_source: str) -> None:
        config = {"peft_type": self.settings_class.peft_type, "base_model_name_or_path": base_source}
        write_adapter(folder, config, self._parameters)

    def load(self, folder: Path) -> None:
        take_over(self._parameters, read_weights(folder))

    def _new(self) -> dict[str, nn.Parameter]:
        raise NotImplementedError


@TUNINGS.of(LastBlockSettings)
class LastBlock(_Own):
    """Partial tuning: the last block's feed-forward and its norm move, in a private copy."""

    settings_class = LastBlockSettings
    mixes_rows = False

    def __init__(self, model: PreTrainedModel, name: str, settings: _OwnSettings) -> None:
        super().__init__(model, name, settings)
        self._copy: PreTrainedModel | None = None
        last = model.config.num_hidden_layers - 1
        self._moving = (f"model.layers.{last}.mlp.", f"model.layers.{last}.post_attention_layernorm.")

    @property
    def model(self) -> PreTrainedModel:
        return self._copy or self._base

    def memory_bytes(self) -> int:
        return private_bytes(self._base, self._moves)

    def attach(self) -> None:
        self._copy = private_copy(self._base, self._moves)
        self._parameters = {name: one for name, one in self._copy.named_parameters() if self._moves(name)}

    def detach(self) -> None:
        self._copy, self._parameters = None, {}

    def _moves(self, name: str) -> bool:
        return name.startswith(self._moving)


@TUNINGS.of(PrefixSettings)
class Prefix(_Own):
    """Prefix tuning (Li and Liang, 2021, arXiv 2101.00190): keys and values of three positions before the first."""

    settings_class = PrefixSettings
    num_virtual_tokens = 3

    def inputs(self, chunk: Chunk) -> Inputs:
        plain = plain_inputs(chunk)
        if chunk.offset:
            return plain
        num_rows = len(chunk.input_ids_BT)
        cache = DynamicCache()
        for layer in range(self._base.config.num_hidden_layers):
            keys, values = (
                self._parameters[f"{kind}.{layer}"].expand(num_rows, -1, -1, -1) for kind in ("keys", "values")
            )
            cache.update(keys, values, layer)
        if chunk.attention_mask_BT is not None:
            before_BP = chunk.attention_mask_BT.new_ones(num_rows, self.num_virtual_tokens)
            plain.tensors["attention_mask"] = torch.cat([before_BP, chunk.attention_mask_BT], dim=1)
        return Inputs(plain.tensors, cache=cache)

    def _new(self) -> dict[str, nn.Parameter]:
        config = self._base.config
        shape = (1, config.num_key_value_heads, self.num_virtual_tokens, config.head_dim)
        return {
            f"{kind}.{layer}": nn.Parameter(torch.randn(shape) * 0.5)
            for kind in ("keys", "values")
            for layer in range(config.num_hidden_layers)
        }


@TUNINGS.of(LastOfPromptSettings)
class LastOfPrompt(_Own):
    """A learned vector on the embedding of a prompt's last token, wherever that lies."""

    settings_class = LastOfPromptSettings

    def inputs(self, chunk: Chunk) -> Inputs:
        tokens_BTH: Tensor = self._base.get_input_embeddings()(chunk.input_ids_BT)
        positions_T = chunk.offset + torch.arange(tokens_BTH.shape[1])
        last_BT1 = (positions_T == chunk.prompt_lengths_B[:, None] - 1)[:, :, None]
        tensors = plain_inputs(chunk).tensors
        del tensors["input_ids"]
        return Inputs({**tensors, "inputs_embeds": tokens_BTH + last_BT1 * self._parameters["vector"]})

    def _new(self) -> dict[str, nn.Parameter]:
        return {"vector": nn.Parameter(torch.zeros(self._base.config.hidden_size))}


_OWN: tuple[type[_OwnSettings], ...] = (LastBlockSettings, PrefixSettings, LastOfPromptSettings)
OWN_SPECS: dict[str, dict[str, Any]] = {one.name: {"type": one.name, one.name: {}} for one in _OWN}


def offer_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test; an installation names a module of methods in LUTHIER_EXTENSIONS instead, before anything reads."""
    for settings in _OWN:
        monkeypatch.setitem(RECIPES._classes, settings.name, settings)
