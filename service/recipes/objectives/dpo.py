"""Direct preference optimization (Rafailov et al., 2023), without tensors. Those are in `workers.objectives.dpo`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from service.recipes.fields import Auto, AutoRule, Number
from service.recipes.format import Format
from service.recipes.formats.preference import Preference
from service.recipes.objective import OBJECTIVES, ObjectiveSettings

AUTO_BETA = 0.1  # of Rafailov et al., 2023, appendix B


@OBJECTIVES.register
class DpoSettings(ObjectiveSettings):
    """Direct preference optimization (Rafailov et al., 2023, [arXiv 2305.18290](https://arxiv.org/abs/2305.18290)): of
    two answers to the same conversation, one is preferred. With the reward r = beta (log p - log p_ref) of an answer,
    the loss of a pair is -log sigmoid(r of the preferred - r of the other). The reference p_ref is the policy at step
    0: the base, or the model that the job continues. Its log-probabilities are computed once, before the first step,
    so no second model is held. At step 0 the loss is log 2; `accuracy` is the share of pairs whose preferred answer has
    the greater reward.
    """

    name: ClassVar[str] = "dpo"
    formats: ClassVar[tuple[type[Format], ...]] = (Preference,)
    auto: ClassVar[Mapping[str, AutoRule]] = {"beta": AutoRule(str(AUTO_BETA), lambda num_examples: AUTO_BETA)}
    columns: ClassVar[Mapping[str, str]] = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_accuracy",
        "valid_loss": "valid_loss",
        "valid_accuracy": "valid_accuracy",
        "train_reward_margin": "train_reward_margin",
        "valid_reward_margin": "valid_reward_margin",
    }
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "reward_margin", "rewards_chosen", "rewards_rejected")
    rows_per_example: ClassVar[int] = 2

    beta: Auto | Annotated[Number, Field(gt=0, le=2)] = Field(
        "auto", description="the price of leaving the reference: the smaller, the further the policy goes"
    )
