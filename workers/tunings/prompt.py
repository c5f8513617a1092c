"""Prompt tuning (Lester et al., 2021, arXiv 2104.08691): P learned vectors before the embeddings of the input.

Touches no module of the base. The vectors are initially embeddings of random tokens of the vocabulary or of a text
(section 3.2 there: better than random numbers), so the outputs differ from the base's even before the first step. Of an
encoder-decoder they stand before what the encoder reads.
Shapes: B rows, T tokens, P virtual tokens, H hidden.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from peft import PromptEmbedding, PromptTuningConfig
from torch import nn
from transformers import PreTrainedModel

from service.domain.json import JsonObject
from service.recipes.tunings.prompt import PromptSettings
from workers.tunings.base import TUNINGS, Chunk, Inputs, plain_inputs, take_over
from workers.tunings.files import read_weights, task_type, write_adapter
from workers.tunings.sites import Rows
from workers.tunings.virtual_tokens import first_tokens

INITS = {"vocabulary": "SAMPLE_VOCAB", "random": "RANDOM", "text": "TEXT"}  # PEFT's names for `init`
PROMPT = "prompt_embeddings"  # PEFT's name in the file


@TUNINGS.of(PromptSettings)
class PromptTuning:
    """A `Tuning`: one matrix of P vectors."""

    mixes_rows: ClassVar[bool] = True  # it acts before the first layer only, on its own rows

    def __init__(self, model: PreTrainedModel, name: str, settings: PromptSettings) -> None:
        self._model = model
        self._embed: nn.Module = model.get_input_embeddings()
        self._settings = settings
        self._num_virtual_tokens: int = settings.num_virtual_tokens
        self._parameters: dict[str, nn.Parameter] = {}

    @staticmethod
    def settings_of(config: JsonObject) -> PromptSettings:
        """The tuning's settings from a saved adapter's config."""
        init = {peft: name for name, peft in INITS.items()}[config["prompt_tuning_init"]]
        text = config["prompt_tuning_init_text"] if init == "text" else ""
        return PromptSettings(num_virtual_tokens=config["num_virtual_tokens"], init=init, init_text=text)

    @property
    def num_virtual_tokens(self) -> int:
        return self._num_virtual_tokens

    @property
    def model(self) -> PreTrainedModel:
        return self._model

    def memory_bytes(self) -> int:
        hidden_size: int = self._model.config.get_text_config().hidden_size
        return self._num_virtual_tokens * hidden_size * torch.float32.itemsize

    def attach(self) -> None:
        prompt: nn.Module = PromptEmbedding(self._config("RANDOM"), self._embed)  # type: ignore[no-untyped-call]
        (weight_PH,) = prompt.to(self._model.device).parameters()
        ids_P = first_tokens(self._model, self._settings)
        if ids_P is not None:
            with torch.no_grad():
                weight_PH.copy_(self._embed(ids_P))
        self._parameters = {PROMPT: weight_PH}

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
        if chunk.offset:
            return plain_inputs(chunk)  # the vectors are already in the cache
        tokens_BTH = self._embed(chunk.input_ids_BT)
        num_rows = len(tokens_BTH)
        prompt_BPH = self._parameters[PROMPT].to(tokens_BTH.dtype).expand(num_rows, -1, -1)
        tensors = {"inputs_embeds": torch.cat([prompt_BPH, tokens_BTH], dim=1)}
        if chunk.attention_mask_BT is not None:
            prompt_mask_BP = chunk.attention_mask_BT.new_ones(num_rows, self._num_virtual_tokens)
            tensors["attention_mask"] = torch.cat([prompt_mask_BP, chunk.attention_mask_BT], dim=1)
        return Inputs(tensors, num_before=self._num_virtual_tokens)

    def save(self, folder: Path, base_source: str) -> None:
        config = self._config(INITS[self._settings.init], tokenizer=base_source)
        config.base_model_name_or_path = base_source
        config.inference_mode = True
        write_adapter(folder, config.to_dict(), self._parameters)

    def load(self, folder: Path) -> None:
        take_over(self._parameters, read_weights(folder))

    def _config(self, init: str, tokenizer: str = "") -> PromptTuningConfig:
        """`init` is PEFT's name; of a text it wants to know whose tokens it has."""
        as_text = init == "TEXT"
        text = self._model.config.get_text_config()
        return PromptTuningConfig(
            task_type=task_type(self._model),
            num_virtual_tokens=self._num_virtual_tokens,
            prompt_tuning_init=init,
            num_transformer_submodules=1,
            token_dim=text.hidden_size,
            num_layers=text.num_hidden_layers,
            num_attention_heads=text.num_attention_heads,
            prompt_tuning_init_text=self._settings.init_text if as_text else None,
            tokenizer_name_or_path=tokenizer if as_text else None,
        )
