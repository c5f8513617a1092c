"""The loss of chosen positions from the states before the output layer, without all their logits at once.

The output layer is the largest matrix of a small model, and logits are its widest tensor: only positions that are
trained go through it, some at a time. What the loss does to a state is known as soon as the logits are, so they are
computed once and kept for nobody. Shapes: N positions, C of them at a time, H hidden, V vocabulary, B rows, T tokens.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

LOGITS = 2**23  # of one chunk, at most: 32 MiB in float32


def plain_output_layer(model: PreTrainedModel) -> nn.Linear | None:
    """The linear layer that is all between the states and the logits; None where a family does more, such as a cap.

    Found by trying, since families say it in many ways. No tuning may be active.
    """
    layer: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(layer, nn.Linear):
        return None
    vocabulary = model.config.get_text_config().vocab_size
    ids_1T = (torch.arange(12) * 7 % vocabulary)[None].to(model.device)
    with torch.no_grad():
        logits = model(input_ids=ids_1T, use_cache=False).logits
        states = model.base_model(input_ids=ids_1T, use_cache=False).last_hidden_state
        return layer if torch.equal(layer(states), logits) else None


def losses_and_right(layer: nn.Linear, states_NH: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """-log p of each target, in nats and float32, and whether the likeliest token is the target.

    A frozen layer's logits are computed in chunks, forward only. The numbers are those of `cross_entropy`.
    """
    if layer.weight.requires_grad:
        logits_NV = layer(states_NH).float()
        return cross_entropy(logits_NV, targets_N, reduction="none"), logits_NV.argmax(dim=-1) == targets_N
    losses_N, right_N = _FrozenLayer.apply(states_NH, layer.weight, layer.bias, targets_N)  # type: ignore[no-untyped-call]
    return losses_N, right_N


class _FrozenLayer(torch.autograd.Function):
    """-log softmax(W h + b)[target]; its derivative by h is  W^T (softmax(W h + b) - onehot(target))."""

    @staticmethod
    def forward(
        ctx: Any, states_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, targets_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        learns = ctx.needs_input_grad[0]
        size = max(1, LOGITS // len(weight_VH))
        losses, right, slopes = [], [], []
        for states_CH, targets_C in zip(torch.split(states_NH, size), torch.split(targets_N, size), strict=True):
            logits_CV = linear(states_CH, weight_VH, bias_V).float()
            logprobs_CV = torch.log_softmax(logits_CV, dim=-1)
            losses_C1 = -logprobs_CV.gather(1, targets_C[:, None])
            losses.append(losses_C1[:, 0])
            right.append(logprobs_CV.argmax(dim=-1) == targets_C)
            if learns:
                slopes_CV = logprobs_CV.exp_().scatter_(1, targets_C[:, None], torch.expm1(-losses_C1))
                slopes.append(slopes_CV.to(weight_VH.dtype) @ weight_VH)
        right_N = torch.cat(right)
        ctx.mark_non_differentiable(right_N)
        ctx.save_for_backward(torch.cat(slopes) if learns else None)
        return torch.cat(losses), right_N

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes_NH,) = ctx.saved_tensors
        return (gradient_N[:, None] * slopes_NH).to(slopes_NH.dtype), None, None, None
