"""Simple preference optimization (Meng et al., 2024), without tensors. Those are in `workers.objectives.simpo`."""

from typing import Annotated, ClassVar

from pydantic import Field

from service.recipes.fields import Number
from service.recipes.objective import OBJECTIVES
from service.recipes.objectives.pairs import PairSettings


@OBJECTIVES.register
class SimpoSettings(PairSettings):
    """Simple preference optimization (Meng et al., 2024, [arXiv 2405.14734](https://arxiv.org/abs/2405.14734)): as
    `dpo`, without a reference. The reward of an answer is beta times the mean log-probability of its tokens, which is
    what generation follows, and the preferred one must lead by gamma: the loss of a pair is
    -log sigmoid(reward of the preferred - reward of the other - gamma). Nothing holds the policy near its base: use few
    epochs, and compare with `dpo`.
    """

    name: ClassVar[str] = "simpo"

    beta: Annotated[Number, Field(gt=0, le=20)] = Field(
        2.0, description="scale of the rewards; 2 to 2.5 in the paper's experiments (appendix B)"
    )
    gamma: Annotated[Number, Field(ge=0, le=20)] = Field(
        1.0, description="the margin that is asked for; half of beta is where the authors advise to begin"
    )
