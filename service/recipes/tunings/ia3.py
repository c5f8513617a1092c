"""(IA)^3 (Liu et al., 2022, arXiv 2205.05638), without tensors. Those are in `workers.tunings.ia3`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from service.recipes.base import EngineKind
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS, BaseSize, LoraForm, TuningSettings

Modules = Annotated[list[str], Field(max_length=32)]


@TUNINGS.register
class Ia3Settings(TuningSettings):
    """(IA)^3 (Liu et al., 2022, [arXiv 2205.05638](https://arxiv.org/abs/2205.05638)): one learned factor for each
    output of the attention's key and value layers, y = l * W x, and for each input of the feed-forward's last layer,
    y = W (l * x). Factors begin at one, so the first step starts from the base's own answers. Fewer parameters than
    a low-rank adapter of rank 1 has: for many small models, and few examples.
    """

    name: ClassVar[str] = "ia3"
    peft_type: ClassVar[str] = "IA3"
    merges: ClassVar[bool] = True
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder", "encoder-decoder"})
    lora_form: ClassVar[LoraForm] = "truncated"

    target_modules: Literal["auto"] | Annotated[Modules, Field(min_length=1)] = Field(
        "auto",
        description="which linear layers, by the last parts of their name; `auto`: those that PEFT has for the base's "
        "architecture, as far as the base has them",
    )
    feedforward_modules: Literal["auto"] | Modules = Field(
        "auto",
        description="those of them whose inputs are scaled instead of their outputs; `auto`: the last layer of the "
        "feed-forward",
    )

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """3e-3 whatever the size: the paper's rate (T-Few, Adafactor, T0 of 3 and of 11 billion parameters).

        Factors around one do not scale with the hidden size.
        """
        return 3e-3
