"""Odds-ratio preference optimization (Hong et al., 2024, arXiv 2403.07691): learn the preferred answer, and that its
odds are the better ones. Without a reference.

Shapes: B rows, P pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from service.recipes.objectives.orpo import OrpoSettings
from workers.data.batches import Batch
from workers.objectives.base import OBJECTIVES, Forward, Loss
from workers.objectives.logprobs import mean_logprobs
from workers.objectives.pairs import PairObjective, pair_loss

CERTAIN = -1e-12  # log p above this is taken for it: the odds of p = 1 are infinite


@OBJECTIVES.of(OrpoSettings)
class Orpo(PairObjective):
    """The sum over pairs of the preferred answer's mean token loss and beta times the odds ratio's."""

    def __init__(self, settings: OrpoSettings) -> None:
        self._beta = settings.beta

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        # log P(y | x) = 1/m sum_t log P(y_t | x, y_<t)          equation 2
        logprobs_B = mean_logprobs(forward, batch)
        log_odds_B = _log_odds(logprobs_B)
        # L_OR = -log sigmoid(log(odds(y_w | x) / odds(y_l | x)))   equation 7
        odds_ratio_P = -logsigmoid(log_odds_B[0::2] - log_odds_B[1::2])
        # L = L_SFT + lambda L_OR                                equation 6; lambda is beta
        losses_P = -logprobs_B[0::2] + self._beta * odds_ratio_P
        return pair_loss(losses_P, self._beta * logprobs_B, batch)


def _log_odds(logprobs_B: Tensor) -> Tensor:
    # odds(y | x) = P(y | x) / (1 - P(y | x))                    equation 4
    bounded_B = logprobs_B.clamp(max=CERTAIN)
    return bounded_B - torch.log(-torch.expm1(bounded_B))
