"""What a sampling objective learns from in one step: rows that the model generates, in parts, and their rewards.

Each part is a turn like a step, so that a long roll-out does not delay other jobs. Nothing here is stored: a job
resumed in the middle of a roll-out starts it again, and samples the same tokens.
"""

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from workers.data.template import ChatTemplate
from workers.data.tokenized import TokenizedDataset
from workers.model.adapters import Adapter
from workers.model.generate import BatchRow
from workers.model.load import LoadedBase
from workers.model.sampling import Sampling
from workers.model.two_sided import batch_for
from workers.objectives import Sampled, SamplingObjective
from workers.tunings import Tuning

PART_ROWS = 32  # decoded together in one turn; a constant, since another batch may give other last bits


class TuningSampler:
    """A `Sampler`: the base with one tuning, which is inactive afterwards."""

    def __init__(self, base: LoadedBase, tuning: Tuning) -> None:
        self._base = base
        self._adapter = Adapter(tuning)
        self._ends = ChatTemplate(base.text).end_ids
        self.begin("")

    def begin(self, seed: str) -> None:
        """From here on random numbers follow from `seed`, which names the job, its step and the part."""
        self._seed = seed
        self._calls = 0
        self.cost_tokens = 0  # that went through the base since then

    def sample(
        self, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int, sampling: Sampling
    ) -> list[list[list[int]]]:
        self._calls += 1
        groups = [
            [
                BatchRow(prompt, replace(sampling, seed=_seed(self._seed, self._calls, place, number)), self._adapter)
                for number in range(num_samples)
            ]
            for place, prompt in enumerate(prompts)
        ]
        batch = batch_for(self._base, self._adapter)
        for group in groups:
            batch.join(batch.prefill(group))
        while batch.rows:
            batch.sample()
            going_on = {
                row for row in batch.rows if len(row.generated) < max_tokens and row.generated[-1] not in self._ends
            }
            batch.keep(going_on)
            batch.advance()
        self.cost_tokens += sum(len(group[0].prompt) for group in groups)
        self.cost_tokens += sum(len(row.generated) for group in groups for row in group)
        return [[row.generated for row in group] for group in groups]


class Rollout:
    """The roll-out of the next step."""

    def __init__(self, objective: SamplingObjective, sampler: TuningSampler, seed: int) -> None:
        self._objective = objective
        self._sampler = sampler
        self._seed = seed
        self._left: deque[Sequence[Sequence[int]]] = deque()
        self._rewards: list[float] | None = None
        self.step: int | None = None  # whose roll-out this is
        self.rows: list[Sampled] = []

    def begin(self, step: int, prompts: Sequence[Sequence[int]]) -> None:
        """Starts the roll-out of `step`; drops the rows of any other step."""
        size = max(1, PART_ROWS // self._objective.samples_per_prompt)
        self.step, self.rows, self._rewards = step, [], None
        self._left = deque(prompts[begin : begin + size] for begin in range(0, len(prompts), size))

    @property
    def sampled(self) -> bool:
        """Whether all rows of the step are sampled."""
        return self.step is not None and not self._left

    @property
    def rewarded(self) -> bool:
        return self._rewards is not None

    def advance(self) -> int:
        """Samples the next part; after the last, asks the objective for its rewards. Returns the cost in tokens."""
        prompts = self._left.popleft()
        self._sampler.begin(f"{self._seed}/{self.step}/{len(self._left)}")
        self.rows += self._objective.roll_out(self._sampler, prompts)
        if not self._left:
            self._rewards = self._objective.rewards(self.rows)
        return self._sampler.cost_tokens

    def reward(self, rewards: Sequence[float]) -> None:
        """Takes the parent's rewards. Raises ValueError unless there is one for each row."""
        if len(rewards) != len(self.rows):
            raise ValueError(f"{len(rewards)} rewards for {len(self.rows)} rows")
        self._rewards = list(rewards)

    def data(self) -> TokenizedDataset:
        """The rows that the update trains on."""
        assert self._rewards is not None, "rewarded before trained"
        return self._objective.learn_from(self.rows, self._rewards)


def _seed(*parts: object) -> int:
    """The seed of one row: it does not depend on other rows of the batch, and is the same after a resume."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big")
