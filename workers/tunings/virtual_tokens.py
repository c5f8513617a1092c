"""Which tokens learned positions before the input begin as: random ones of the vocabulary, or those of a text.

Used by `workers.tunings.prompt` (their embeddings) and `workers.tunings.prefix` (their keys and values). A text becomes
tokens where a job begins, since only there is a tokenizer needed: what was saved has its numbers in its file.
Shapes: P virtual tokens.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from service.domain.errors import JobError
from service.recipes.tuning import TuningSettings
from service.recipes.virtual_tokens import VirtualTokenSettings


def tokenized(settings: TuningSettings, tokenizer: PreTrainedTokenizerBase) -> TuningSettings:
    """The settings with the tokens of their text, where they have one. Raises JobError for a text without tokens."""
    if not isinstance(settings, VirtualTokenSettings) or settings.init != "text":
        return settings
    ids: list[int] = tokenizer(settings.init_text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise JobError(
            "invalid_init_text",
            "The init_text has no tokens for this base's tokenizer; write a text that says the task.",
            param=f"tuning.{settings.name}.init_text",
        )
    return settings.with_text_tokens(ids)


def first_tokens(model: PreTrainedModel, settings: VirtualTokenSettings) -> Tensor | None:
    """ids_P, drawn from torch's global generator, or the text's, repeated or cut. None: begin as random numbers.

    None also for a text without tokens, as in a saved adapter's settings: its numbers are loaded.
    """
    num_tokens = settings.num_virtual_tokens
    if settings.init == "vocabulary":
        embedding = model.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return torch.randint(0, embedding.num_embeddings, (num_tokens,)).to(model.device)
    if not settings.text_tokens:
        return None
    repeated = list(settings.text_tokens) * -(-num_tokens // len(settings.text_tokens))
    return torch.tensor(repeated[:num_tokens], device=model.device)
