"""Direct preference optimization (Rafailov et al., 2023) and its variants, without tensors.

Those are in `workers.objectives.dpo`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from service.recipes.fields import Auto, AutoRule, Number
from service.recipes.objective import OBJECTIVES
from service.recipes.objectives.pairs import PairSettings

AUTO_BETA = 0.1  # of Rafailov et al., 2023, appendix B
AUTO_BETA_NORMALIZED = 5.0  # of Lambert et al., 2024 (Tulu 3), section 5.3: rewards per token are smaller
MAX_BETA, MAX_BETA_NORMALIZED = 2.0, 10.0  # OpenAI's; and for rewards per token


@OBJECTIVES.register
class DpoSettings(PairSettings):
    """Direct preference optimization (Rafailov et al., 2023, [arXiv 2305.18290](https://arxiv.org/abs/2305.18290)): of
    two answers to the same conversation, one is preferred. With the reward r = beta (log p - log p_ref) of an answer,
    the loss of a pair is -log sigmoid(r of the preferred - r of the other). The reference p_ref is the base, or
    the model that the job continues. Its log-probabilities are computed once, before the first step, so no second model
    is held. At step 0 the loss is log 2, except with `prompt` and `prefix`, which begin elsewhere than the base;
    `accuracy` is the share of pairs whose preferred answer has the greater reward.

    `loss_type` `ipo` (Azar et al., 2023, [arXiv 2310.12036](https://arxiv.org/abs/2310.12036), equation 17) is
    (d - 1 / (2 beta))^2 with d the difference of log p - log p_ref between both answers: the margin has a target, so
    that preferences without exception do not push it further and further; at step 0 the loss is 1 / (4 beta^2). With
    `length_normalized` an answer's log-probabilities are averages per token instead of sums, so that a long answer does
    not weigh more (Lambert et al., 2024, Tulu 3, [arXiv 2411.15124](https://arxiv.org/abs/2411.15124), equation 6; for
    `ipo` as its authors confirmed to TRL, whose ipo this is). `label_smoothing` e takes each preference for wrong with
    the probability e: (1 - e) times the loss, and e times that of the opposite (Mitchell, 2023,
    [conservative DPO](https://ericmitchell.ai/cdpo.pdf)).
    """

    name: ClassVar[str] = "dpo"
    auto: ClassVar[Mapping[str, AutoRule]] = {
        "beta": AutoRule(
            f"{AUTO_BETA}; {AUTO_BETA_NORMALIZED:g} with `length_normalized` and the loss type `sigmoid`",
            lambda num_examples: AUTO_BETA,
        )
    }

    loss_type: Literal["sigmoid", "ipo"] = Field("sigmoid", description="DPO's own loss, or IPO's squared distance")
    length_normalized: bool = Field(
        False, strict=True, description="whether an answer's log-probability is its mean per token, not their sum"
    )
    beta: Auto | Annotated[Number, Field(gt=0, le=MAX_BETA_NORMALIZED)] = Field(
        "auto",
        description="the price of leaving the reference: the smaller, the further the policy goes; "
        f"at most {MAX_BETA:g} unless `length_normalized`",
    )
    label_smoothing: Annotated[Number, Field(ge=0, lt=0.5)] = Field(
        0.0, description="how probable it is that a preference is wrong; for the loss type `sigmoid`"
    )

    @field_validator("beta")
    @classmethod
    def _beta_fits(cls, beta: Auto | float, info: ValidationInfo) -> Auto | float:
        if beta != "auto" and beta > MAX_BETA and not info.data.get("length_normalized"):
            raise PydanticKnownError("less_than_equal", {"le": MAX_BETA})
        return beta

    @field_validator("label_smoothing")
    @classmethod
    def _smoothing_fits(cls, smoothing: float, info: ValidationInfo) -> float:
        if smoothing and info.data.get("loss_type") == "ipo":
            raise PydanticCustomError("label_smoothing", "is for the loss type 'sigmoid'; with 'ipo' leave it out")
        return smoothing

    @classmethod
    def auto_for(cls, hyperparameters: Mapping[str, Any]) -> Mapping[str, AutoRule]:
        if not hyperparameters.get("length_normalized") or hyperparameters.get("loss_type") == "ipo":
            return cls.auto
        return {"beta": AutoRule(str(AUTO_BETA_NORMALIZED), lambda num_examples: AUTO_BETA_NORMALIZED)}
