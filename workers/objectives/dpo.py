"""Direct preference optimization (Rafailov et al., 2023, arXiv 2305.18290) and variants: make the preferred of two
answers likelier.

Rewards are relative to the job's reference, whose log-probabilities come with the batch, so that no second model is
loaded.
Shapes: B rows, P pairs.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from service.recipes.fields import resolved
from service.recipes.objectives.dpo import DpoSettings
from workers.data.batches import Batch
from workers.objectives.base import OBJECTIVES, Forward, Loss
from workers.objectives.logprobs import logprobs, trained_lengths
from workers.objectives.pairs import PairObjective, pair_loss


@OBJECTIVES.of(DpoSettings)
class Dpo(PairObjective):
    """The sum over pairs of -log sigmoid(reward of the preferred answer - reward of the other), or of IPO's loss.

    While the policy is its reference every reward is 0, so the loss of a pair is log 2, or 1 / (4 beta^2). `accuracy`
    is then 0, since both rewards are equal. There is no token accuracy: DPO has no right token.
    """

    needs_reference = True

    def __init__(self, settings: DpoSettings) -> None:
        self._settings = settings
        self._beta = resolved(settings.beta)

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        assert batch.reference_B is not None, "computed before the first step"
        ratios_B = logprobs(forward, batch) - batch.reference_B
        if self._settings.length_normalized:
            ratios_B = ratios_B / trained_lengths(batch)  # Lambert et al., 2024, equation 6
        # r(x, y) = beta (log pi(y | x) - log pi_ref(y | x))    equation 5, without the term that both answers share
        rewards_B = self._beta * ratios_B
        losses_P = self._squared(ratios_B) if self._settings.loss_type == "ipo" else self._sigmoid(rewards_B)
        return pair_loss(losses_P, rewards_B, batch)

    def _sigmoid(self, rewards_B: Tensor) -> Tensor:
        margins_P = rewards_B[0::2] - rewards_B[1::2]
        # L = -log sigmoid(r(x, y_w) - r(x, y_l))               equation 7
        losses_P = -logsigmoid(margins_P)
        smoothing = self._settings.label_smoothing
        if not smoothing:
            return losses_P
        # L = -(1 - e) log sigmoid(d) - e log sigmoid(-d)       Mitchell, 2023, equation 3
        return (1 - smoothing) * losses_P - smoothing * logsigmoid(-margins_P)

    def _squared(self, ratios_B: Tensor) -> Tensor:
        # L = (h(y_w, y_l) - 1 / (2 tau))^2                     Azar et al., 2023, equation 17; tau is beta
        return (ratios_B[0::2] - ratios_B[1::2] - 1 / (2 * self._beta)).square()
