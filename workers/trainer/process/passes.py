"""Rows through the base and the objective: with gradients to train, without to measure.

One loop for every recipe: which parameters move is the tuning's, which loss is the objective's. Keeps no state.
Shapes: B rows, T tokens, K kept positions, V vocabulary.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workers.data.batches import IGNORED, Batch, collate
from workers.data.tokenized import TokenizedDataset
from workers.model.load import LoadedBase
from workers.objectives import Forward, Objective, logprobs
from workers.trainer.process.plan import micro_batches
from workers.tunings import Tuning
from workers.tunings.base import Chunk


@dataclass(frozen=True)
class Measured:
    """Means over the trained tokens or pairs of some examples; `cost_tokens` counts all their tokens."""

    loss: float
    others: Mapping[str, float]  # the objective's own metrics
    cost_tokens: int

    def named(self, prefix: str) -> dict[str, float]:
        """As metrics: `train_loss` and so on."""
        return {f"{prefix}_{name}": value for name, value in {"loss": self.loss, **self.others}.items()}


class Passes:
    """The passes of one job; its tuning is active whenever they run."""

    def __init__(self, base: LoadedBase, tuning: Tuning, objective: Objective) -> None:
        self._base = base
        self._tuning = tuning
        self._objective = objective

    def train(self, dataset: TokenizedDataset, examples: Sequence[int], reference_N: Tensor | None = None) -> Measured:
        """Adds the gradient of the examples' mean loss to the tuning's parameters, dropout on.

        `reference_N` belongs to the dataset's rows; see `logprobs`.
        """
        self._tuning.train(True)
        try:
            return self._pass(dataset, examples, reference_N, learn=True)
        finally:
            self._tuning.train(False)

    def measure(
        self, dataset: TokenizedDataset, examples: Sequence[int], reference_N: Tensor | None = None
    ) -> Measured:
        """The examples' mean loss, dropout off."""
        with torch.no_grad():
            return self._pass(dataset, examples, reference_N, learn=False)

    def logprobs(self, dataset: TokenizedDataset, examples: Sequence[int]) -> dict[int, float]:
        """How likely the model finds each row of the examples, dropout off; through the same batches as `train`."""
        found: dict[int, float] = {}
        with torch.no_grad():
            for rows, batch in self._batches(dataset, examples, None):
                logprobs_B = logprobs(self.forward_of(batch), batch.to(self._base.device))
                found |= zip(rows, logprobs_B.tolist(), strict=True)
        return found

    def score(self, ids: Sequence[int]) -> list[float]:
        """log p(token | tokens before) of every token but the first, dropout off; one row alone, as engines see it."""
        ids_1T = torch.tensor([list(ids)], device=self._base.device)
        keep_K = torch.arange(len(ids) - 1, device=self._base.device)
        chunk = Chunk(ids_1T, torch.ones_like(ids_1T), torch.tensor([len(ids)], device=self._base.device))
        with torch.no_grad():
            logits_1KV = self.logits(chunk, keep_K)
        logprobs_KV = logits_1KV[0].float().log_softmax(dim=-1)
        logprobs_K1 = logprobs_KV.gather(1, ids_1T[0, 1:, None])
        scores: list[float] = logprobs_K1.squeeze(1).tolist()
        return scores

    def _pass(
        self, dataset: TokenizedDataset, examples: Sequence[int], reference_N: Tensor | None, learn: bool
    ) -> Measured:
        """The gradient of a step is that of  sum of its losses / number of its tokens or pairs,  however many
        micro-batches the step is cut into: each is divided by the count of all.
        """
        batches = [batch for _, batch in self._batches(dataset, examples, reference_N)]
        count = max(1, sum(self._objective.count(batch) for batch in batches))
        total, sums = 0.0, Counter[str]()
        for batch in batches:
            loss = self._objective.loss(self.forward_of(batch), batch.to(self._base.device))
            if learn:
                (loss.total / count).backward()  # type: ignore[no-untyped-call]
            total += float(loss.total.detach())
            sums.update({name: value.item() for name, value in loss.sums.items()})
        means = {name: value / count for name, value in sums.items()}
        return Measured(total / count, means, dataset.cost_tokens(examples))

    def _batches(
        self, dataset: TokenizedDataset, examples: Sequence[int], reference_N: Tensor | None
    ) -> Iterator[tuple[list[int], Batch]]:
        """The micro-batches of the plan, with their rows' numbers."""
        lengths = [dataset.length(example) for example in examples]
        for group in micro_batches(examples, lengths, dataset.rows_per_example):
            rows = dataset.rows_of(group)
            batch = collate(dataset, rows, self._base.pad_id)
            yield rows, batch if reference_N is None else replace(batch, reference_B=reference_N[rows])

    def logits(self, chunk: Chunk, keep_K: Tensor) -> Tensor:
        """logits_BKV at those places of the tokens; what the tuning puts before them is not counted."""
        inputs = self._tuning.inputs(chunk)
        logits_BKV: Tensor = self._tuning.model(
            **inputs.tensors,
            past_key_values=inputs.cache,
            use_cache=inputs.cache is not None,
            logits_to_keep=keep_K + inputs.num_before,
        ).logits
        return logits_BKV

    def forward_of(self, batch: Batch) -> Forward:
        """What an objective calls for the logits of the batch's rows."""
        lengths_B = prompt_lengths_by_labels(batch).to(self._base.device)

        def forward(input_ids_BT: Tensor, attention_mask_BT: Tensor, keep_K: Tensor) -> Tensor:
            return self.logits(Chunk(input_ids_BT, attention_mask_BT, lengths_B), keep_K)

        return forward


def prompt_lengths_by_labels(batch: Batch) -> Tensor:
    """prompt_lengths_B: the tokens before a row's first trained one; all of a row that trains nothing."""
    trained_BT = batch.labels_BT != IGNORED
    first_B = trained_BT.int().argmax(dim=1)
    return torch.where(trained_BT.any(dim=1), first_B, batch.attention_mask_BT.sum(dim=1))
