"""The loss of the general text under one job's model, before its training and after it.

A tuned model that says less of what its base said is not found by the job's own validation file, which is about the
task. The text is fixed (`workers.data.general_text`), so the figures of different jobs of a base can be compared.
Shapes: K places of a piece, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from workers.data.base_text import BaseText
from workers.data.general_text import general_ids


class GeneralText:
    """The text as a base's tokens, made when they are first needed; `limit_tokens` of one piece fit its context."""

    def __init__(self, text: BaseText, limit_tokens: int) -> None:
        self._text = text
        self._limit_tokens = limit_tokens

    @cached_property
    def _pieces(self) -> list[list[int]]:
        return general_ids(self._text, self._limit_tokens)

    @property
    def num_tokens(self) -> int:
        """Those that are predicted: all but the first of each piece."""
        return sum(len(ids) - 1 for ids in self._pieces)

    def loss(self, next_logprobs: Callable[[Sequence[int]], Tensor]) -> float:
        """-1/n sum log p(token | tokens before it in its piece), in nats; `next_logprobs` gives logprobs_KV."""
        total = 0.0
        for ids in self._pieces:
            logprobs_KV = next_logprobs(ids)
            next_K1 = torch.tensor(ids[1:], device=logprobs_KV.device)[:, None]
            total += float(logprobs_KV.gather(1, next_K1).double().sum())
        return -total / self.num_tokens
