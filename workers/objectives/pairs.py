"""What objectives of preference pairs share: rows 2k and 2k + 1 of a batch are the preferred and the other answer.

Shapes: B rows, P pairs.
"""

from torch import Tensor

from workers.data.batches import Batch
from workers.objectives.base import Loss, Objective


class PairObjective(Objective):
    """A loss for each pair, summed; a pair's weight multiplies its loss."""

    def count(self, batch: Batch) -> int:
        return len(batch.labels_BT) // 2


def pair_loss(losses_P: Tensor, rewards_B: Tensor, batch: Batch) -> Loss:
    """The sum over pairs. `accuracy` counts those whose preferred answer has the greater reward."""
    if batch.row_weights_B is not None:
        losses_P = losses_P * batch.row_weights_B[0::2]
    rewards_B = rewards_B.detach()
    chosen_P, rejected_P = rewards_B[0::2], rewards_B[1::2]
    sums = {
        "accuracy": (chosen_P > rejected_P).sum(),
        "reward_margin": (chosen_P - rejected_P).sum(),
        "rewards_chosen": chosen_P.sum(),
        "rewards_rejected": rejected_P.sum(),
    }
    return Loss(losses_P.sum(), sums)
