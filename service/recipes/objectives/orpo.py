"""Odds-ratio preference optimization (Hong et al., 2024), without tensors. Those are in `workers.objectives.orpo`."""

from typing import Annotated, ClassVar

from pydantic import Field

from service.recipes.fields import Number
from service.recipes.objective import OBJECTIVES
from service.recipes.objectives.pairs import PairSettings


@OBJECTIVES.register
class OrpoSettings(PairSettings):
    """Odds-ratio preference optimization (Hong et al., 2024, [arXiv 2403.07691](https://arxiv.org/abs/2403.07691)):
    supervised training on the preferred answer and a preference in one, without a reference. With log p the mean
    log-probability of an answer's tokens and odds = p / (1 - p), the loss of a pair is
    -log p of the preferred - beta log sigmoid(log (odds of the preferred / odds of the other)). For a base that has not
    been trained on such answers yet, in place of a supervised job followed by `dpo`. Rewards are beta log p.
    """

    name: ClassVar[str] = "orpo"

    beta: Annotated[Number, Field(gt=0, le=2)] = Field(
        0.1, description="the weight of the odds ratio, lambda in the paper; 0.1 is its default in section 5 and TRL's"
    )
