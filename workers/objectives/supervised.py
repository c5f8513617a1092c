"""Supervised fine-tuning: cross entropy of the tokens that the loss mask keeps, each given all tokens before it.

Shapes: B rows, T tokens, K kept positions, V vocabulary.
"""

import torch
from torch.nn.functional import cross_entropy

from service.recipes.objectives.supervised import SupervisedSettings
from workers.data.batches import IGNORED, Batch
from workers.objectives.base import OBJECTIVES, Forward, Loss, Objective


@OBJECTIVES.of(SupervisedSettings)
class Supervised(Objective):
    """The sum of -w log p(token | tokens before) over the trained tokens. A row's first token is never trained.

    w is the token's weight, 1 in a file without weights. The loop divides by the number of trained tokens, not by their
    weights, so that a token of half the weight moves the model half as far in a step of its own, too.
    """

    def __init__(self, settings: SupervisedSettings) -> None:
        """It has no settings."""

    def count(self, batch: Batch) -> int:
        return int((batch.targets_BT != IGNORED).sum())

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        targets_BT = batch.targets_BT
        keep_K = batch.trained_K
        targets_BK = targets_BT[:, keep_K]
        logits_BKV = forward.logits(batch, keep_K)
        reduction = "sum" if batch.token_weights_BT is None else "none"
        total = cross_entropy(
            logits_BKV.flatten(0, 1).float(), targets_BK.flatten(), ignore_index=IGNORED, reduction=reduction
        )
        if batch.token_weights_BT is not None:
            # L = 1/N sum_t -w_t log p(y_t | y_<t),  N the number of tokens whose weight is not 0
            weights_BK = batch.token_weights_BT.roll(-1, dims=1)[
                :, keep_K
            ]  # of the targets; no target is a first token
            total = (weights_BK.flatten() * total).sum()
        with torch.no_grad():
            trained_BK = targets_BK != IGNORED
            num_correct = ((logits_BKV.argmax(dim=-1) == targets_BK) & trained_BK).sum()
        return Loss(total, {"mean_token_accuracy": num_correct})
