"""A reward model (Bradley and Terry, 1952; Ouyang et al., 2022, arXiv 2203.02155): one number for a whole conversation.

Rows 2k and 2k + 1 of a batch are the preferred and the other answer. Shapes: B rows, P pairs.
"""

from torch.nn.functional import logsigmoid

from service.domain.model import HeadConfig
from service.recipes.objectives.reward_model import RewardModelSettings
from service.recipes.tasks import BaseKind
from workers.data.batches import Batch
from workers.data.tokenized import TokenizedDataset
from workers.objectives.base import OBJECTIVES, Forward, HeadObjective, Loss
from workers.objectives.pairs import pair_loss


@OBJECTIVES.of(RewardModelSettings)
class RewardModel(HeadObjective):
    """The sum over pairs of -log sigmoid(r of the preferred - r of the other): log 2 per pair at step 0."""

    def __init__(self, settings: RewardModelSettings) -> None:
        """It has no settings."""

    def prepare(self, train: TokenizedDataset, kind: BaseKind) -> None:
        self.config = HeadConfig(problem_type="regression", labels=[], pooling="last")

    def count(self, batch: Batch) -> int:
        return len(batch.labels_BT) // 2

    def loss(self, forward: Forward, batch: Batch) -> Loss:
        rewards_B = self.logits(forward, batch)[:, 0]
        # L = -log sigmoid(r(x, y_w) - r(x, y_l))               Ouyang et al., equation 1
        return pair_loss(-logsigmoid(rewards_B[0::2] - rewards_B[1::2]), rewards_B, batch)
