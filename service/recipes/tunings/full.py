"""Full fine-tuning, without tensors. Those are in `workers.tunings.full`."""

from typing import ClassVar

from service.recipes.base import EngineKind
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS, BaseSize, LoraForm, TuningSettings


@TUNINGS.register
class FullSettings(TuningSettings):
    """Full fine-tuning: every weight of the base moves, in a copy of its own; the base that other jobs share stays as
    it is. For data that is far from what the base knows, and much of it: a low-rank adapter forgets less and costs a
    small part of this. A job takes four times the base's size (weights, gradients and the optimizer's two moments, in
    float32; over a bfloat16 base twelve times); one that does not fit fails at its start, with the number of bytes. The
    model is as large as the base, and an engine computes its requests in a batch of their own.
    """

    name: ClassVar[str] = "full"
    peft_type: ClassVar[str] = "LUTHIER_FULL"
    merges: ClassVar[bool] = True
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder", "encoder-decoder"})
    moves_the_base: ClassVar[bool] = True
    lora_form: ClassVar[LoraForm] = "truncated"

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """5e-5 at a hidden size of 2000, falling with it to the power of 0.781: a tenth of the rate of `lora`.

        Thinking Machines, "LoRA without regret" (2025): the best rate of full fine-tuning was a tenth of the best one
        of LoRA, in every comparison.
        """
        return size.scaled(5e-5)
