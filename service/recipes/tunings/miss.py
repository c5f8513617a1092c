"""MiSS (Kang and Yin, 2024, arXiv 2409.15371), without tensors. Those are in `workers.tunings.miss`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from service.recipes.base import EngineKind
from service.recipes.fields import Integer, Number, Whole
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS, BaseSize, LoraForm, TuningSettings


@TUNINGS.register
class MissSettings(TuningSettings):
    """Matrix shard sharing (MiSS; Kang and Yin, 2024, [arXiv 2409.15371](https://arxiv.org/abs/2409.15371)): the inputs
    of a linear layer are cut into shards of r numbers, which all share one small matrix: y = W x + D (x_1 + x_2 + ...).
    D begins at zero, so the first step starts from the base's own answers. One product where `lora` needs two, and
    about half the parameters at the same rank. Not for layers that store their weights as (in, out), as GPT-2 does.
    """

    name: ClassVar[str] = "miss"
    peft_type: ClassVar[str] = "MISS"
    merges: ClassVar[bool] = True
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder", "encoder-decoder"})
    lora_form: ClassVar[LoraForm] = "exact"
    changeable: ClassVar[frozenset[str]] = frozenset({"dropout"})

    r: Annotated[Integer, Whole] = Field(
        32, ge=1, le=512, description="length of a shard and rank of the change; at most a layer's number of inputs"
    )
    dropout: Number = Field(0.0, ge=0, lt=1, description="share of a layer's inputs that a training step leaves out")
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1, max_length=32)] = Field(
        "all-linear",
        description="which linear layers, by the last part of their name; the output layer is none of them",
    )

    @property
    def lora_rank(self) -> int:
        return self.r

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """A tenth of LoRA's: 5e-5 at a hidden size of 2000, falling with it to the power of 0.781.

        D is added to the weights entry by entry and unscaled, so a step of Adam moves them as full fine-tuning does;
        this is the rate of full fine-tuning that LoRA's rule starts from. At a hidden size of 4096 it is 2.9e-5; the
        authors' example for Llama 2 7B has 2e-5.
        """
        return size.scaled(5e-5)
