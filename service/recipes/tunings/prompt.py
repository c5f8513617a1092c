"""Prompt tuning (Lester et al., 2021, arXiv 2104.08691), without tensors. Those are in `workers.tunings.prompt`."""

from typing import ClassVar

from service.recipes.base import EngineKind
from service.recipes.tasks import BaseKind
from service.recipes.tuning import TUNINGS, BaseSize
from service.recipes.virtual_tokens import VirtualTokenSettings


@TUNINGS.register
class PromptSettings(VirtualTokenSettings):
    """Prompt tuning (Lester et al., 2021, [arXiv 2104.08691](https://arxiv.org/abs/2104.08691)): learned vectors stand
    before the embeddings of the input; no weight of the base is touched. They begin as embeddings of random tokens of
    the vocabulary, so the answers differ from the base's before the first step; a text that says the task (`init:
    text`) begins nearer to it. For very small artifacts, and bases whose layers shall stay untouched.
    """

    name: ClassVar[str] = "prompt"
    peft_type: ClassVar[str] = "PROMPT_TUNING"
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    kinds: ClassVar[frozenset[BaseKind]] = frozenset({"causal", "encoder", "encoder-decoder"})
    no_lora_form: ClassVar[str] = "its virtual tokens are inputs, and change no weights"

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """3e-2 whatever the size: what Hugging Face's PEFT guide on prompt tuning uses with AdamW.

        The paper's 0.3 (section 3) is Adafactor's, which scales steps by the parameters. Vectors before the input are
        as long as embeddings, whose scale does not follow the hidden size.
        """
        return 3e-2
