"""The tensors of the made-up methods: imported by trainer and engine, by the name in `module`.

Shapes: B rows, T tokens, K kept positions, P words, V vocabulary, H hidden.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from service.recipes.fields import resolved
from service.recipes.tunings.prompt import PromptSettings
from tests.given.extension.methods import GreetingSettings, SmoothedSettings
from workers.data.batches import IGNORED, Batch
from workers.objectives.base import OBJECTIVES, Forward, Loss, Objective
from workers.tunings.base import TUNINGS
from workers.tunings.files import CONFIG, WEIGHTS
from workers.tunings.prompt import PROMPT, PromptTuning


@TUNINGS.of(GreetingSettings)
class GreetingTuning(PromptTuning):
    """Sits where soft prompts sit; begins and is stored in a way of its own."""

    def __init__(self, model: PreTrainedModel, name: str, settings: GreetingSettings) -> None:
        super().__init__(model, name, PromptSettings(num_virtual_tokens=settings.num_words))
        self._words = settings.num_words

    @staticmethod
    def settings_of(config: dict[str, Any]) -> GreetingSettings:
        return GreetingSettings(num_words=config["num_words"])

    def attach(self) -> None:
        embeddings_VH = self._model.get_input_embeddings().weight.detach().float()
        self._parameters = {PROMPT: nn.Parameter(embeddings_VH.mean(dim=0).expand(self._words, -1).clone())}

    def save(self, folder: Path, base_source: str) -> None:
        config = {"peft_type": "GREETING", "num_words": self._words, "base_model_name_or_path": base_source}
        (folder / CONFIG).write_text(json.dumps(config, sort_keys=True), encoding="utf-8")
        save_file({name: value.detach().cpu() for name, value in self._parameters.items()}, folder / WEIGHTS)


@OBJECTIVES.of(SmoothedSettings)
class Smoothed(Objective):
    """The sum over trained tokens of the cross entropy with (1 - epsilon) on the label and epsilon on all tokens."""

    def __init__(self, settings: SmoothedSettings) -> None:
        self._epsilon = resolved(settings.epsilon)

    def count(self, batch: Batch) -> int:
        return int((batch.targets_BT != IGNORED).sum())

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        keep_K = batch.trained_K
        targets_BK = batch.targets_BT[:, keep_K]
        logits_BKV = forward.logits(batch, keep_K).float()
        total = cross_entropy(
            logits_BKV.flatten(0, 1),
            targets_BK.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self._epsilon,
        )
        with torch.no_grad():
            sureness_BK = logits_BKV.softmax(dim=-1).amax(dim=-1)
        return Loss(total, {"sureness": (sureness_BK * (targets_BK != IGNORED)).sum()})
