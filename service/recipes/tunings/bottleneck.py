"""Bottleneck adapters (Houlsby et al., 2019, arXiv 1902.00751), without tensors; see `workers.tunings.bottleneck`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from service.recipes.base import EngineKind
from service.recipes.fields import Auto, Integer, Whole
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS, BaseSize, TuningSettings


@TUNINGS.register
class BottleneckSettings(TuningSettings):
    """Bottleneck adapters (Houlsby et al., 2019, [arXiv 1902.00751](https://arxiv.org/abs/1902.00751)): after a
    sublayer and before its residual is added, h + W_up f(W_down h + b) + b', with few numbers in the middle. `houlsby`
    stands after attention and after feed-forward; `pfeiffer` (Pfeiffer et al., 2020,
    [arXiv 2005.00247](https://arxiv.org/abs/2005.00247)) after feed-forward only, at half the cost. W_up begins at
    zero, so the first step starts from the base's own answers. Unlike a low-rank adapter it is not linear, so it cannot
    be merged into the base. The places are found by the base's structure; a base of another structure is refused.
    """

    name: ClassVar[str] = "bottleneck"
    peft_type: ClassVar[str] = "LUTHIER_BOTTLENECK"
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder-decoder"})
    no_lora_form: ClassVar[str] = "its layers are not linear, so no change of weights computes the same"

    placement: Literal["houlsby", "pfeiffer"] = Field("pfeiffer", description="after which sublayers of every block")
    reduction: Annotated[Integer, Whole] = Field(
        16, ge=1, le=1024, description="the base's hidden size divided by the size of the middle, if `size` is `auto`"
    )
    size: Annotated[Auto | Annotated[Integer, Field(ge=1, le=8192)], Whole] = Field(
        "auto", description="how many numbers the middle has"
    )
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="the function f")

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """5e-4 at a hidden size of 2000, falling with it to the power of 0.781.

        At 4096 that is the 3e-4 with which Hu et al. (2023, arXiv 2304.01933) trained both on LLaMA 7B.
        """
        return size.scaled(5e-4)
