"""One job's validation file: which of its examples are measured after which step.

Forward only, in a slot's turn; `slot` says when, and has the weights in force.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from workers.data.tokenized import TokenizedDataset
from workers.objectives import Objective
from workers.trainer.process.faults import check_finite
from workers.trainer.process.passes import Measured, Passes

# Of one batch, forward only: at most a third of the cost of training an epoch, far less for a long epoch.
VALIDATIONS_PER_EPOCH = 20


class Validation:
    """The measurements of one job; without a file there are none."""

    def __init__(
        self,
        passes: Passes,
        objective: Objective,
        file: TokenizedDataset | None,
        batch_size: int,
        steps_per_epoch: int,
    ) -> None:
        self._passes = passes
        self._objective = objective
        self._file = file
        self._batch_size = batch_size
        self._steps_per_epoch = steps_per_epoch

    def measure(self, step: int, reference_N: Tensor | None) -> tuple[dict[str, float], int]:
        """The metrics that are due after `step` steps, and the tokens that they cost. Raises JobError.

        `valid_*`: one batch, the next rows of the file (after the last, the first again), at about
        VALIDATIONS_PER_EPOCH steps of an epoch and at its last step. `full_valid_*`: the whole file, at that last step.
        """
        if self._file is None:
            return {}, 0
        metrics: dict[str, float] = {}
        cost_tokens = 0
        every = math.ceil(self._steps_per_epoch / VALIDATIONS_PER_EPOCH)
        position = (step - 1) % self._steps_per_epoch + 1
        at_epoch_end = position == self._steps_per_epoch
        if position % every == 0 or at_epoch_end:
            some = self._mean(step, _ring(step // every, self._batch_size, self._file.num_examples), reference_N)
            metrics |= some.named("valid")
            cost_tokens += some.cost_tokens
        if at_epoch_end:
            full = self._mean(step, range(self._file.num_examples), reference_N)
            metrics |= full.named("full_valid")
            if full.outputs:
                found = self._objective.evaluate(self._file, full.outputs)
                metrics |= {f"full_valid_{name}": value for name, value in found.metrics.items()}
            cost_tokens += full.cost_tokens
        return metrics, cost_tokens

    def tables(self, step: int, reference_N: Tensor | None) -> Mapping[str, str]:
        """What the weights in force make of the whole file, as files: name -> text. Raises JobError."""
        if self._file is None:
            return {}
        full = self._mean(step, range(self._file.num_examples), reference_N)
        return self._objective.evaluate(self._file, full.outputs).tables if full.outputs else {}

    def _mean(self, step: int, examples: Sequence[int], reference_N: Tensor | None) -> Measured:
        assert self._file is not None
        parts = _even(examples, self._batch_size) if self._objective.contrasts else [examples]
        measured = _together([(self._passes.measure(self._file, part, reference_N), len(part)) for part in parts])
        check_finite("validation loss", measured.loss, step)
        return measured


def _even(examples: Sequence[int], most: int) -> list[Sequence[int]]:
    """As few parts of at most `most` as possible, of almost equal sizes: the last would else be easier than others."""
    count = math.ceil(len(examples) / most)
    ends = [len(examples) * part // count for part in range(count + 1)]
    return [examples[begin:end] for begin, end in pairwise(ends)]


def _together(parts: Sequence[tuple[Measured, int]]) -> Measured:
    """The means over all parts, of which each counts as often as it has examples."""
    (first, _), *others = parts
    if not others:
        return first
    num_examples = sum(size for _, size in parts)
    loss = sum(part.loss * size for part, size in parts) / num_examples
    metrics = {name: sum(part.others[name] * size for part, size in parts) / num_examples for name in first.others}
    return Measured(loss, metrics, sum(part.cost_tokens for part, _ in parts))


def _ring(turn: int, size: int, num_examples: int) -> Sequence[int]:
    """The `turn`-th `size` of an endless repetition of `num_examples` examples; each at most once."""
    size = min(size, num_examples)
    return [(turn * size + offset) % num_examples for offset in range(size)]
