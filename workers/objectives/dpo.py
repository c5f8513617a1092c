"""Direct preference optimization (Rafailov et al., 2023, arXiv 2305.18290): make the preferred of two
answers likelier.

Rewards are relative to the policy at step 0, whose log-probabilities come with the batch, so that no second model is
loaded. Rows 2k and 2k + 1 of a batch are the preferred and the other answer of a pair.
Shapes: B rows, P pairs.
"""

from torch.nn.functional import logsigmoid

from service.recipes.fields import resolved
from service.recipes.objectives.dpo import DpoSettings
from workers.data.batches import Batch
from workers.objectives.base import OBJECTIVES, Forward, Loss, Objective
from workers.objectives.logprobs import logprobs


@OBJECTIVES.of(DpoSettings)
class Dpo(Objective):
    """The sum over pairs of -log sigmoid(reward of the preferred answer - reward of the other).

    At step 0 every reward is 0, so the loss of a pair is log 2. `accuracy` is the share of pairs whose preferred answer
    has the greater reward: 0 at step 0, where they are equal. There is no token accuracy: DPO has no right token.
    """

    needs_reference = True

    def __init__(self, settings: DpoSettings) -> None:
        self._beta = resolved(settings.beta)

    def count(self, batch: Batch) -> int:
        return len(batch.labels_BT) // 2

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        assert batch.reference_B is not None, "computed before the first step"
        # r(x, y) = beta (log pi(y | x) - log pi_ref(y | x))    equation 5, without the term that both answers share
        rewards_B = self._beta * (logprobs(forward, batch) - batch.reference_B)
        chosen_P, rejected_P = rewards_B[0::2], rewards_B[1::2]
        # L = -log sigmoid(r(x, y_w) - r(x, y_l))               equation 7
        total = -logsigmoid(chosen_P - rejected_P).sum()
        chosen_P, rejected_P = chosen_P.detach(), rejected_P.detach()
        sums = {
            "accuracy": (chosen_P > rejected_P).sum(),
            "reward_margin": (chosen_P - rejected_P).sum(),
            "rewards_chosen": chosen_P.sum(),
            "rewards_rejected": rejected_P.sum(),
        }
        return Loss(total, sums)
