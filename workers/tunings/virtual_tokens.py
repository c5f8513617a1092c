"""Which tokens learned positions before the input begin as: random ones of the vocabulary, or those of a text.

Used by `workers.tunings.prompt` (their embeddings) and `workers.tunings.prefix` (their keys and values).
Shapes: P virtual tokens.
"""

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

from service.domain.errors import JobError
from service.recipes.virtual_tokens import VirtualTokenSettings


def first_tokens(model: PreTrainedModel, settings: VirtualTokenSettings) -> Tensor:
    """ids_P, drawn from torch's global generator or repeated from the text. Raises JobError for a text without any."""
    num_tokens = settings.num_virtual_tokens
    if settings.init == "text":
        return text_tokens(model, settings.init_text, num_tokens)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return torch.randint(0, embedding.num_embeddings, (num_tokens,)).to(model.device)


def text_tokens(model: PreTrainedModel, text: str, num_tokens: int) -> Tensor:
    """ids_P: the text's own tokens, without those that the tokenizer puts around it, repeated or cut.

    The tokenizer is that of the folder or commit that the model was loaded from. Raises JobError.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        model.name_or_path, revision=model.config._commit_hash, trust_remote_code=False
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise JobError("invalid_init_text", "The init_text has no tokens; write a text that says the task.")
    repeated = ids * -(-num_tokens // len(ids))
    return torch.tensor(repeated[:num_tokens], device=model.device)
