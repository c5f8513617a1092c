"""Prefix tuning (Li and Liang, 2021, arXiv 2101.00190), without tensors. Those are in `workers.tunings.prefix`."""

from typing import ClassVar

from service.recipes.base import EngineKind
from service.recipes.tuning import TUNINGS, BaseSize
from service.recipes.virtual_tokens import VirtualTokenSettings


@TUNINGS.register
class PrefixSettings(VirtualTokenSettings):
    """Prefix tuning (Li and Liang, 2021, [arXiv 2101.00190](https://arxiv.org/abs/2101.00190)): every layer attends to
    learned keys and values of some positions before the input, softmax(q [P_k; k]^T / sqrt(d)) [P_v; v]; no weight of
    the base is touched. They begin as the base's own keys and values of random tokens of the vocabulary, or of a text
    (section 7.4 there: better than random numbers), so the answers differ from the base's before the first step. More
    room than `prompt`, which learns the first layer's input only; each position costs two vectors in each layer. The
    paper's second network over the prefix is left out: it serves the start from random numbers.
    """

    name: ClassVar[str] = "prefix"
    peft_type: ClassVar[str] = "PREFIX_TUNING"
    engines: ClassVar[frozenset[EngineKind]] = frozenset({"embedded"})
    unpacked_because: ClassVar[str] = "every row attends to the prefix in a cache of its own"
    no_lora_form: ClassVar[str] = "its keys and values are put before the prompt, and change no weights"

    @classmethod
    def default_learning_rate(cls, size: BaseSize) -> float:
        """5e-3 whatever the size: what PEFT's own comparison of methods uses for a prefix that begins as a text.

        The paper's 5e-5 (appendix) moves its second network, of which one step changes all positions at once. Keys and
        values are one head wide, and heads do not grow with the base.
        """
        return 5e-3
