"""Supervised fine-tuning: cross entropy of the tokens that the loss mask keeps, each given all tokens before it.

Shapes: B rows, T tokens, K positions.
"""

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
        tokens = forward.token_losses(batch)
        losses_BK = tokens.losses_BK
        if batch.token_weights_BT is not None:
            # L = 1/N sum_t -w_t log p(y_t | y_<t),  N the number of tokens whose weight is not 0
            losses_BK = tokens.at(batch.token_weights_BT.roll(-1, dims=1)) * losses_BK  # no target is a first token
        return Loss(losses_BK.sum(), {"mean_token_accuracy": tokens.num_right})
