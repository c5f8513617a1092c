"""The size of a base and of a tuning on it in memory, known from the base's config.json alone.

The model is built on torch's meta device, where tensors have shapes and no numbers. Does not depend on jobs: a check
calls it, in a worker that has not loaded the base. A trainer, which has, asks for what another one would need.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from service.recipes.base import Base
from workers.model import nf4
from workers.model.kind import empty_model
from workers.model.load import commit_of
from workers.model.output_layer import LOGITS

LOGIT_COPIES = 3  # of a chunk of logits: themselves, their logarithms, and their slopes


@dataclass(frozen=True)
class Footprint:
    """What a base needs; `model` may be without its numbers."""

    model: PreTrainedModel
    weights_bytes: int
    token_bytes: int  # that a forward pass keeps of each token for the backward pass, at most about
    vocabulary: int

    def activation_bytes(self, tokens: int) -> int:
        """Of a micro-batch of so many tokens."""
        logits = min(tokens * self.vocabulary, LOGITS)
        return tokens * self.token_bytes + LOGIT_COPIES * logits * torch.float32.itemsize


def footprint(base: Base) -> Footprint:
    """Blocks for a moment. Raises OSError or ValueError where config.json cannot be read."""
    config = AutoConfig.from_pretrained(base.source, revision=commit_of(base), trust_remote_code=False)
    model = empty_model(base.kind, config, getattr(torch, base.dtype))
    model.requires_grad_(False)
    return Footprint(model, _weights_bytes(model, base), token_bytes(model), _vocabulary(model))


def loaded_footprint(model: PreTrainedModel) -> Footprint:
    """Of a base that is in memory."""
    weights_bytes = int(model.get_memory_footprint())  # type: ignore[no-untyped-call]
    return Footprint(model, weights_bytes, token_bytes(model), _vocabulary(model))


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)


def _weights_bytes(model: PreTrainedModel, base: Base) -> int:
    packed = nf4.packed_layers(model) if base.quantization is not None else []
    inside = {id(layer.weight) for layer in packed}
    plain = sum(p.numel() * p.element_size() for p in model.parameters() if id(p) not in inside)
    return plain + sum(nf4.packed_bytes(layer.weight.numel()) for layer in packed)


def token_bytes(model: PreTrainedModel) -> int:
    """What every matrix between the embeddings and the output layer reads and writes for a token.

    That counts an input once per matrix that reads it, and leaves out what norms and activation functions keep: about
    the same. A frozen matrix keeps less, so this is rather too much for small tunings.
    """
    ends: list[nn.Module | None] = [model.get_input_embeddings(), model.get_output_embeddings()]  # type: ignore[no-untyped-call]
    ends += [module for module in model.modules() if isinstance(module, nn.Embedding)]
    outside = {id(parameter) for module in ends if module is not None for parameter in module.parameters()}
    matrices = [p for p in model.parameters() if p.dim() > 1 and id(p) not in outside]
    return sum(sum(matrix.shape[-2:]) * matrix.element_size() for matrix in matrices)
