"""The log-probability of every row under the reference of a job: computed once, in parts, and then stored.

Each part is a turn like a step, so that a large file does not delay other jobs. The reference is the base without the
tuning, whatever that does to the base before the first step; in continued tuning it is the model that is continued, of
which the tuning then has the weights. A snapshot without log-probabilities is from before the first update.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from workers.data.tokenized import TokenizedDataset
from workers.trainer.process.passes import Passes

REFERENCE = "reference/"


class Reference:
    """Log-probabilities per row of one job's files; `parts` are the examples of each turn, by file.

    A job whose objective needs none has no parts: it is complete at once, and holds nothing.
    """

    def __init__(self, files: Mapping[str, TokenizedDataset], parts: Sequence[tuple[str, Sequence[int]]]) -> None:
        self._files = files
        self._left = deque(parts)
        wanted = {name for name, _ in parts}
        self._logprobs = {name: torch.zeros(len(files[name]), dtype=torch.float64) for name in sorted(wanted)}

    @property
    def complete(self) -> bool:
        return not self._left

    def advance(self, passes: Passes) -> int:
        """Computes the next part, by the passes of the reference. Returns its cost in tokens."""
        name, examples = self._left.popleft()
        for row, logprob in passes.logprobs(self._files[name], examples).items():
            self._logprobs[name][row] = logprob
        return self._files[name].cost_tokens(examples)

    def of(self, name: str) -> Tensor | None:
        """reference_N of a file's rows; None where the objective needs none."""
        assert self.complete
        return self._logprobs.get(name)

    def state(self) -> dict[str, Tensor]:
        """For a snapshot; empty until it is complete, since it can be computed again until then."""
        return {REFERENCE + name: tensor for name, tensor in self._logprobs.items()} if self.complete else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads what `state` returned, bit for bit; `tensors` may hold other names too."""
        saved = {name: tensors[REFERENCE + name] for name in self._logprobs if REFERENCE + name in tensors}
        if saved:
            self._logprobs = saved
            self._left.clear()
