"""Rows through the base and the objective: with gradients to train, without to measure.

One loop for every recipe: which parameters move is the tuning's, which loss is the objective's. Keeps no state.
Shapes: B rows, T tokens, K kept positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.base import LoadedBase
from workers.data.batches import Batch, collate
from workers.data.tokenized import TokenizedDataset
from workers.objectives import Loss, Objective
from workers.trainer.plan import micro_batches
from workers.tunings import Tuning


@dataclass(frozen=True)
class Measured:
    """Means over the trained tokens of some rows; `cost_tokens` counts all their tokens."""

    loss: float
    accuracy: float
    cost_tokens: int


class Passes:
    """The passes of one job; its tuning is active whenever they run."""

    def __init__(self, base: LoadedBase, tuning: Tuning, objective: Objective) -> None:
        self._base = base
        self._tuning = tuning
        self._objective = objective

    def train(self, dataset: TokenizedDataset, rows: Sequence[int]) -> Measured:
        """Adds the gradient of the rows' mean loss to the tuning's parameters, dropout on."""
        self._tuning.train(True)
        try:
            return self._pass(dataset, rows, learn=True)
        finally:
            self._tuning.train(False)

    def measure(self, dataset: TokenizedDataset, rows: Sequence[int]) -> Measured:
        """The rows' mean loss, dropout off."""
        with torch.no_grad():
            return self._pass(dataset, rows, learn=False)

    def _pass(self, dataset: TokenizedDataset, rows: Sequence[int], learn: bool) -> Measured:
        """The gradient of a step is that of  sum over its tokens of the loss / number of its tokens,  however many
        micro-batches the step is cut into: each is divided by the count of all.
        """
        lengths = [int(dataset.offsets[row + 1] - dataset.offsets[row]) for row in rows]
        batches = [collate(dataset, group, self._base.pad_id) for group in micro_batches(rows, lengths)]
        num_tokens = max(1, sum(self._objective.num_tokens(batch) for batch in batches))
        total, num_correct = 0.0, 0
        for batch in batches:
            loss = self._loss(batch)
            if learn:
                (loss.total / num_tokens).backward()  # type: ignore[no-untyped-call]
            total += float(loss.total.detach())
            num_correct += int(loss.num_correct)
        return Measured(total / num_tokens, num_correct / num_tokens, sum(lengths))

    def _loss(self, batch: Batch) -> Loss:
        device = self._base.device
        moved = Batch(batch.input_ids_BT.to(device), batch.attention_mask_BT.to(device), batch.labels_BT.to(device))
        return self._objective.loss(self.logits, moved)

    def logits(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, keep_K: Tensor) -> Tensor:
        """An objective's `Forward`; virtual tokens, where the tuning has some, are in front and not in `keep_K`."""
        inputs = self._tuning.inputs(input_ids_BT, attention_mask_BT)
        keep_K = keep_K + self._tuning.num_virtual_tokens
        logits_BKV: Tensor = self._base.model(**inputs, use_cache=False, logits_to_keep=keep_K).logits
        return logits_BKV
