"""Simple preference optimization (Meng et al., 2024, arXiv 2405.14734): the preferred answer leads by a margin.

Without a reference. Shapes: B rows, P pairs.
"""

from torch.nn.functional import logsigmoid

from service.recipes.objectives.simpo import SimpoSettings
from workers.data.batches import Batch
from workers.objectives.base import OBJECTIVES, Forward, Loss
from workers.objectives.logprobs import mean_logprobs
from workers.objectives.pairs import PairObjective, pair_loss


@OBJECTIVES.of(SimpoSettings)
class Simpo(PairObjective):
    """The sum over pairs of -log sigmoid(reward of the preferred answer - reward of the other - gamma)."""

    def __init__(self, settings: SimpoSettings) -> None:
        self._beta = settings.beta
        self._gamma = settings.gamma

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        # r(x, y) = beta/|y| log pi(y | x)                       equation 4
        rewards_B = self._beta * mean_logprobs(forward, batch)
        # L = -log sigmoid(r(x, y_w) - r(x, y_l) - gamma)        equation 6
        losses_P = -logsigmoid(rewards_B[0::2] - rewards_B[1::2] - self._gamma)
        return pair_loss(losses_P, rewards_B, batch)
