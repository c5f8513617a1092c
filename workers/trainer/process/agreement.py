"""The agreement rows: which they are, their tokens' log-probabilities with the adapter and without it, and its effect.

With a job's last checkpoint. An engine scores the same rows before the model is announced (`workers.jobs.announce`).
Both passes are of one process and one format, so nothing but the adapter lies between them: an adapter that could not
change an answer is found here. The base's own rounding is the measure: an effect that is no larger than what one
rounding step at the input does to the same rows is not the adapter's. A job that continues a tuned model is compared
with that model instead: with what it said before the first step.
Shapes: K places of a row, V vocabulary, H hidden, N likeliest tokens of a place.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from service.domain.errors import JobError
from workers.data.tokenized import TokenizedDataset
from workers.trainer.protocol import ScoredRow

ENOUGH_TOKENS = 1024  # where the effect is large, more say nothing new
ENOUGH_EFFECT = 25.0  # sum of squares in nats: with noise of 0.1 per token its strength is then known to 2 %
LIMIT_TOKENS = 4096  # scored for one job: about as long as one step of training
LIMIT_ROWS = 256
LIMIT_SEEN = 4096  # rows of a file that are looked at, for others than those before
UNNOTICED = 1e-3  # mean share of tokens, sampled at temperature 1, that an adapter without effect may change
COARSE = 1e-4  # of number formats with larger steps, one step may change more than that
LIKELIEST = 64  # tokens of each place that are kept of what a job began with


@dataclass(frozen=True)
class Effect:
    """What an adapter does to the next tokens of its base, or of the model it continues, over some places of some rows.

    `shift` is the total variation distance between both distributions, in the mean over the places: the share of
    tokens, sampled at temperature 1, that differ. `rounding` is what one step of the base's format does. `changed`
    counts the places where the likeliest token is another.
    """

    shift: float
    rounding: float
    changed: int
    changed_by_rounding: int
    num_tokens: int

    @property
    def noticeable(self) -> bool:
        """Whether it could change an answer."""
        return self.shift > max(UNNOTICED, self.rounding) or self.changed > self.changed_by_rounding


@dataclass(frozen=True)
class Beginning:
    """What a tuned model said of one row before the job that continues it: the likeliest tokens of each place."""

    likeliest_K: Tensor  # of equals, the one that the base's comparison takes
    ids_KN: Tensor
    probs_KN: Tensor

    @classmethod
    def of(cls, logprobs_KV: Tensor) -> "Beginning":
        found = logprobs_KV.topk(min(LIKELIEST, logprobs_KV.shape[-1]), dim=-1)
        return cls(logprobs_KV.argmax(-1).cpu(), found.indices.cpu(), found.values.exp().cpu())

    def shift(self, logprobs_KV: Tensor) -> float:
        """Sum over the places of the total variation distance, all other tokens taken as one: at most the real one."""
        probs_KN = logprobs_KV.gather(-1, self.ids_KN.to(logprobs_KV.device)).exp().cpu()
        others_K = (probs_KN.sum(-1) - self.probs_KN.sum(-1)).abs()
        return float(((probs_KN - self.probs_KN).abs().sum(-1) + others_K).sum(dtype=torch.float64)) / 2

    def num_changed(self, logprobs_KV: Tensor) -> int:
        return int((logprobs_KV.argmax(-1).cpu() != self.likeliest_K).sum())


class EffectMeter:
    """Sums up the effect of an adapter, row by row, and counts how much of it has been seen.

    `beginnings` are of the first rows, for a job that continues a tuned model: then these alone count as its effect.
    """

    def __init__(self, beginnings: Sequence[Beginning] = ()) -> None:
        self.num_tokens = 0
        self.energy = 0.0  # of the rows' own tokens: squares of nats
        self._beginnings = iter(beginnings)
        self._continues = bool(beginnings)
        self._compared = 0  # tokens whose effect counts
        self._shift = self._rounding = 0.0
        self._changed = self._changed_by_rounding = 0

    @property
    def enough(self) -> bool:
        return self.num_tokens >= ENOUGH_TOKENS and self.energy >= ENOUGH_EFFECT

    def add(self, row: ScoredRow, tuned_KV: Tensor, base_KV: Tensor, nudged_KV: Tensor | None) -> None:
        """One row: log-probabilities with the adapter, without it, and without it a rounding step aside."""
        self.num_tokens += len(base_KV)
        self.energy += sum(effect**2 for effect in effects(row))
        beginning = next(self._beginnings, None)
        if self._continues and beginning is None:
            return
        self._compared += len(base_KV)
        self._shift += distance(tuned_KV, base_KV) if beginning is None else beginning.shift(tuned_KV)
        self._changed += _others(tuned_KV, base_KV) if beginning is None else beginning.num_changed(tuned_KV)
        if nudged_KV is not None:
            self._rounding += distance(nudged_KV, base_KV)
            self._changed_by_rounding += _others(nudged_KV, base_KV)

    def effect(self) -> Effect:
        count = max(1, self._compared)
        return Effect(
            self._shift / count, self._rounding / count, self._changed, self._changed_by_rounding, self._compared
        )


def check_noticeable(effect: Effect, *, continues: bool) -> None:
    """Raises JobError for an adapter that could not change an answer: it is useless, and looks like a model."""
    if not effect.num_tokens or effect.noticeable:
        return
    before = "the model that it continues" if continues else "its base"
    raise JobError(
        "adapter_without_effect",
        f"The trained model answers as {before} does: over {effect.num_tokens} tokens of the job's own rows it would "
        f"change {effect.shift:.2g} of the sampled tokens (less than {max(UNNOTICED, effect.rounding):.2g} is not "
        f"noticeable) and {effect.changed} of the likeliest ones. The learning rate is probably far too small: "
        "learning_rate_multiplier multiplies the base's own rate, so that 1 is the usual value. "
        "Try 1, more epochs, or other examples.",
        param="hyperparameters.learning_rate_multiplier",
    )


@dataclass(frozen=True)
class Candidate:
    """The first tokens of a row, and of its second sequence."""

    ids: list[int]
    second: list[int] = field(default_factory=list)


def candidates(files: Iterable[TokenizedDataset], num_tokens: int) -> Iterator[Candidate]:
    """The first tokens of the files' rows, each beginning once; rows of one token have nothing to score.

    Two sequences of a row share `num_tokens`, which an engine takes together.
    """
    seen: set[tuple[int, ...]] = set()
    for file in files:
        most = num_tokens if file.second_offsets is None else num_tokens // 2
        for row in range(min(LIMIT_SEEN, len(file))):
            found = Candidate(file.row(row)[0][:most].tolist(), file.second(row)[:most].tolist())
            known = (*found.second, -1, *found.ids)
            if len(found.ids) > 1 and known not in seen:
                seen.add(known)
                yield found


def bounded(rows: Iterable[Candidate]) -> Iterator[Candidate]:
    """As many of them as are scored at most."""
    num_tokens = 0
    for row in islice(rows, LIMIT_ROWS):
        if num_tokens + len(row.ids) > LIMIT_TOKENS:
            return
        num_tokens += len(row.ids) - 1
        yield row


def groups(rows: Iterable[Candidate], num_places: int) -> Iterator[list[Candidate]]:
    """Neighbours that are scored in one pass: each group ends with the row that brings it to `num_places`."""
    group: list[Candidate] = []
    for row in rows:
        group.append(row)
        if sum(len(one.ids) - 1 for one in group) >= num_places:
            yield group
            group = []
    if group:
        yield group


def scored(row: Candidate, tuned_KV: Tensor, base_KV: Tensor) -> ScoredRow:
    """The log-probabilities of the row's own tokens."""
    ids = row.ids
    return ScoredRow(
        ids=ids, second=row.second, logprobs=of_tokens(ids, tuned_KV), base_logprobs=of_tokens(ids, base_KV)
    )


def of_tokens(ids: Sequence[int], logprobs_KV: Tensor) -> list[float]:
    """The log-probabilities of the row's own tokens, but its first."""
    next_K1 = torch.tensor(ids[1:], device=logprobs_KV.device)[:, None]
    found: list[float] = logprobs_KV.gather(1, next_K1).squeeze(1).tolist()
    return found


def effects(row: ScoredRow) -> list[float]:
    """What the adapter adds to the log-probability of each of the row's tokens."""
    assert row.base_logprobs is not None
    return [tuned - base for tuned, base in zip(row.logprobs, row.base_logprobs, strict=True)]


def is_coarse(dtype: torch.dtype) -> bool:
    """Whether one rounding step of the format may be noticed in the output."""
    return torch.finfo(dtype).eps > COARSE


@contextmanager
def nudged(*models: PreTrainedModel) -> Iterator[None]:
    """Inside, every number of the input's embeddings is one rounding step of its format larger or smaller, in turns.

    A tuning's private copy has another module for embeddings than its base, and an encoder-decoder one for each side,
    whatever they share.
    """

    def nudge(_: nn.Module, __: tuple[object, ...], states_BTH: Tensor) -> Tensor:
        step = torch.finfo(states_BTH.dtype).eps
        signs_H = 1 - 2 * (torch.arange(states_BTH.shape[-1], device=states_BTH.device) % 2)
        return (states_BTH.float() * (1 + step * signs_H)).to(states_BTH.dtype)

    embeddings = {module for model in models for module in _embeddings(model)}
    hooks = [module.register_forward_hook(nudge) for module in embeddings]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _embeddings(model: PreTrainedModel) -> Iterator[nn.Module]:
    """All modules that look up the input's embeddings."""
    weight = model.get_input_embeddings().weight
    return (module for module in model.modules() if isinstance(module, nn.Embedding) and module.weight is weight)


def distance(one_KV: Tensor, other_KV: Tensor) -> float:
    """Sum over the places of the total variation distance, sum |p - q| / 2."""
    return float((one_KV.exp() - other_KV.exp()).abs().sum(dtype=torch.float64)) / 2


def _others(one_KV: Tensor, other_KV: Tensor) -> int:
    return int((one_KV.argmax(-1) != other_KV.argmax(-1)).sum())
