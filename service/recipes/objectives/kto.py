"""Kahneman-Tversky optimization (Ethayarajh et al., 2024), without tensors. Those are in `workers.objectives.kto`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from service.recipes.fields import Number
from service.recipes.format import Format
from service.recipes.formats.preference import Preference
from service.recipes.formats.unpaired import Unpaired
from service.recipes.objective import OBJECTIVES, ObjectiveSettings


@OBJECTIVES.register
class KtoSettings(ObjectiveSettings):
    """Kahneman-Tversky optimization (Ethayarajh et al., 2024, [arXiv 2402.01306](https://arxiv.org/abs/2402.01306)): of
    each answer it is known only whether it is wanted, as thumbs up and down say. With r = log p - log p_ref of an
    answer, p_ref as in `dpo`, the loss is desirable_weight (1 - sigmoid(beta (r - z))) of a wanted answer and
    undesirable_weight (1 - sigmoid(beta (z - r))) of an unwanted one. z estimates how far the policy is from the
    reference, KL(p || p_ref), and is not trained: the mean r of mismatched answers over the whole step, and at least 0.
    The mismatched answer to a row's prompt is that of a row with another prompt; each answer of the file is one once,
    so that wanted and unwanted ones are as frequent among them as in the file. A step wants several rows: use a
    `batch_size` of 8 or more. While the policy is p_ref, as at most tunings' step 0 (`dpo`), the loss is half of the
    weights' mean. A preference row is two rows here, one wanted and one not. `accuracy` is the share of answers on
    their side of z, `kl` is z. `rewards_chosen` and `rewards_rejected` are the means of beta r of the wanted and the
    unwanted answers, `reward_margin` their difference; a step without such answers has none.
    """

    name: ClassVar[str] = "kto"
    formats: ClassVar[tuple[type[Format], ...]] = (Unpaired, Preference)
    columns: ClassVar[Mapping[str, str]] = {
        "step": "step",
        "train_loss": "train_loss",
        "train_accuracy": "train_accuracy",
        "valid_loss": "valid_loss",
        "valid_accuracy": "valid_accuracy",
        "train_reward_margin": "train_reward_margin",
        "valid_reward_margin": "valid_reward_margin",
        "train_kl": "train_kl",
        "valid_kl": "valid_kl",
    }
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "reward_margin", "rewards_chosen", "rewards_rejected", "kl")
    rows_per_example: ClassVar[int] = 2
    unpaired: ClassVar[bool] = True

    beta: Annotated[Number, Field(gt=0, le=2)] = Field(
        0.1, description="the price of leaving the reference; 0.1 is the paper's and TRL's default"
    )
    desirable_weight: Annotated[Number, Field(gt=0, le=100)] = Field(
        1.0,
        description="of wanted answers, lambda_D; where one kind is rare, choose both weights such that weight times "
        "number of answers is equal, up to 4/3 as much for the wanted (section 4)",
    )
    undesirable_weight: Annotated[Number, Field(gt=0, le=100)] = Field(1.0, description="of unwanted answers, lambda_U")
