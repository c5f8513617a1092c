"""A reward model of preference pairs, without tensors. The tensor side is in `workers.objectives.reward_model`."""

from typing import ClassVar

from service.domain.model import TaskName
from service.recipes.objective import OBJECTIVES
from service.recipes.objectives.pairs import PairSettings


@OBJECTIVES.register
class RewardModelSettings(PairSettings):
    """A score for an answer, learnt from pairs of which one is preferred by the model of Bradley and Terry (1952), as
    in Ouyang et al., 2022, [arXiv 2203.02155](https://arxiv.org/abs/2203.02155), section 3.5: a linear layer, the
    *head*, reads the state of the conversation's last token as one number r, and the loss of a pair is
    -log sigmoid(r of the preferred - r of the other). Only differences between answers to one conversation mean
    something. The head begins at zero, so the first loss is log 2. For ranking answers, choosing the best of several,
    and as the reward of reinforcement learning. The model writes no text: `/v1/classifications` with `messages`, the
    answer as the last one, returns its `score`.
    """

    name: ClassVar[str] = "reward_model"
    task: ClassVar[TaskName] = "classify"
