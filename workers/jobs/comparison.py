"""Whether an engine computes a trained adapter: its effect in the trainer against its effect in the engine; and of a
model with a head, what the head returns in both.

The effect of an adapter on a token is  log p(token) with it - without it,  both in one program. So the number formats
and kernels of trainer and engine, which change every log-probability a little, cancel but for their rounding noise; how
large that is, the base's own log-probabilities in both programs say. Three tests, whose bounds are meant to refuse at
most one healthy adapter of 1,000 (`benchmarks/agreement_power.txt` and `agreement_vllm.txt` have what was measured; ADR
0017 why):

    base      the base differs between the programs by little of what distinguishes its tokens: the same weights
    slope     the engine's effect on the trainer's, over the tokens, is 1: the whole adapter, at its own strength
    residual  what remains of the engine's effect is noise: in every module what was trained there

What heads return (probabilities of labels, scores, vectors of length 1) has one test: the same weights in the same
number format differ by rounding alone. What the tuning changes of it says whether the comparison could see an engine
that leaves the tuning out.

Numbers only: knows no engine, no storage and no job. All log-probabilities are in nats.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from workers.trainer.protocol import HeadRow, ScoredRow

Floats = npt.NDArray[np.float64]

# What rounding moves an improbable token's log-probability by, at least, as a share of the spread of the base's: half a
# step in bfloat16. For bases that both programs happen to round alike, and the adapter not.
NOISE_FLOOR = {"float32": 1e-5, "bfloat16": 4e-3}
# The same in nats, for rows whose trainer did not score the base: above the mean of 0.06 of a real base in bfloat16.
UNKNOWN_NOISE = {"float32": 1e-3, "bfloat16": 0.1}
BASE_SHARE = 0.04  # of the variance of the base's log-probabilities that its difference may have: 20 % of their spread
NOISE_GROWTH = 3.0  # the variance of the noise with the adapter may be that of the base's so many times
UNEXPLAINED_SHARE = 0.005  # of the effect's energy that the residual may have beyond the noise: 7 % of the effect
SLOPE_SLACK = 0.05  # that the slope may differ from 1 by however small its error is
# The same where the engine computes in a coarser format than the trainer, whose rounding takes a part of a weak
# adapter's effect; told by the base's differing by more than this share of the spread of its log-probabilities.
COARSER_SLACK, COARSER = 0.2, 1e-3
DEVIATIONS = 4.5  # standard errors that the slope may differ from 1 by
DECISIVE = 0.3  # a slope that may differ from 1 by more cannot be told from that of half an adapter
TOKENS_PER_VALUE = 4.0  # the noise of neighbouring tokens is alike: so many count as one independent value
DEVIATIONS_OF_NOISE = 3.7  # normal quantile: one healthy adapter in 10,000
# Of what a head returns: of a probability, of the distance between two vectors, or of a score and as much again for
# each unit of it. Float32 differs by 1e-6 (padding, threads).
HEAD_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


class Verdict(Enum):
    """What a comparison says of the engine."""

    AGREES = "agrees"
    UNDECIDED = (
        "undecided"  # nothing contradicts, but the effect is too small beside the noise to be told from half of it
    )
    BASE_DIFFERS = "the base"
    STRENGTH_DIFFERS = "the adapter's strength"
    EFFECT_DIFFERS = "the adapter's effect"

    @property
    def contradicts(self) -> bool:
        return self not in (Verdict.AGREES, Verdict.UNDECIDED)


@dataclass(frozen=True)
class Comparison:
    """An adapter's effect in the trainer and in an engine on the same tokens; infinite where a value is not finite."""

    num_tokens: int
    trained: float  # mean absolute effect in the trainer
    served: float  # mean absolute effect in the engine
    base_difference: float  # mean absolute difference of the base between both; 0 where the trainer did not score it
    base_share: float  # its mean square, as a share of the variance of the base's log-probabilities
    slope: float  # of the engine's effect on the trainer's; 1 for the adapter that was trained
    slope_error: float  # one standard error
    residual: float  # mean square of the effects' difference, in units of the noise's variance
    residual_allowed: float
    slope_slack: float = SLOPE_SLACK

    @property
    def slope_allowed(self) -> float:
        """How far the slope may be from 1."""
        return max(self.slope_slack, DEVIATIONS * self.slope_error)

    @property
    def verdict(self) -> Verdict:
        if not self.base_share <= BASE_SHARE:
            return Verdict.BASE_DIFFERS
        if not abs(self.slope - 1) <= self.slope_allowed:
            return Verdict.STRENGTH_DIFFERS
        if not self.residual <= self.residual_allowed:
            return Verdict.EFFECT_DIFFERS
        return Verdict.AGREES if self.slope_allowed < DECISIVE else Verdict.UNDECIDED


def compare(
    rows: Sequence[ScoredRow], served: Sequence[Sequence[float]], served_base: Sequence[Sequence[float]], dtype: str
) -> Comparison:
    """`served` and `served_base` are an engine's log-probabilities of the rows' tokens with the adapter and without it.

    `dtype` is the base's. Where the rows have no log-probabilities of the base (an earlier version stored them), the
    engine's are used, and the noise is the largest that is usual. Raises ValueError where the shapes differ.
    """
    paired = all(row.base_logprobs is not None for row in rows)
    ours = _flat([row.logprobs for row in rows])
    theirs, their_base = _flat(served), _flat(served_base)
    our_base = _flat([row.base_logprobs or [] for row in rows]) if paired else their_base
    if not ours.shape == theirs.shape == our_base.shape == their_base.shape:
        raise ValueError("the engine did not score the tokens that the trainer did")
    if not len(ours):
        raise ValueError("there is nothing to compare")
    if not all(np.isfinite(values).all() for values in (theirs, their_base)):
        return _not_finite(ours, our_base)
    effect = ours - our_base
    again = _flat([row.nudged_effects or [] for row in rows])
    if not len(again):
        again = effect
    floor = NOISE_FLOOR[dtype] * float(our_base.std()) if paired else UNKNOWN_NOISE[dtype]
    found = _compared(ours, our_base, again, theirs, their_base, floor)
    coarser = dtype == "float32" and found.base_share > COARSER**2
    return replace(found, slope_slack=COARSER_SLACK) if coarser else found


def _compared(
    ours: Floats, our_base: Floats, again: Floats, theirs: Floats, their_base: Floats, floor: float
) -> Comparison:
    """The engine's effects on the trainer's, through the origin, weighted.

    The weights are 1 / variance of the noise in a token's effect: noise s^2 (1 - p)^2 in a log-probability of p, since
    log-softmax cancels what moves the logit of a token that has almost all of the probability. s^2 is from the base.
    """
    effect, served = ours - our_base, theirs - their_base
    difference = their_base - our_base
    shape = _noise_shape(our_base)
    noise = max(float((difference**2).sum() / (2 * shape.sum())), floor**2)  # s^2 of one program
    variance = noise * (_noise_shape(ours) + shape)
    energy = max(0.0, float((again * effect / variance).sum()))
    slope, error = _slope(effect, again / variance, served, energy)
    count = len(ours)
    return Comparison(
        num_tokens=count,
        trained=float(np.abs(effect).mean()),
        served=float(np.abs(served).mean()),
        base_difference=float(np.abs(difference).mean()),
        base_share=_share(difference, our_base),
        slope=slope,
        slope_error=error,
        residual=float(((served - effect) ** 2 / variance).mean()),
        residual_allowed=NOISE_GROWTH * _ratio_by_chance(count) + UNEXPLAINED_SHARE * energy / count,
    )


def _slope(effect: Floats, instrument: Floats, served: Floats, energy: float) -> tuple[float, float]:
    """The slope and its standard error, which holds whatever the residuals' variances are (White, 1980).

    By an instrumental variable (Durbin, 1954): the effect is noisy itself, which would flatten a line of least squares;
    the effect measured again is as large, and its noise is another.
    """
    if energy == 0:
        return 1.0, math.inf
    slope = float((instrument * served).sum()) / energy
    spread = float(((instrument * (served - slope * effect)) ** 2).sum())
    return slope, math.sqrt(spread) / energy


def _noise_shape(logprobs: Floats) -> Floats:
    """(1 - p)^2 for each token, and a little, since a logarithm of almost 1 is rounded too."""
    shape: Floats = np.expm1(np.minimum(logprobs, 0)) ** 2 + 1e-4
    return shape


def _share(difference: Floats, base: Floats) -> float:
    """Mean square of the difference / variance of the base's log-probabilities."""
    variance = float(base.var())
    square = float((difference**2).mean())
    return square / variance if variance > 0 else (0.0 if square == 0 else math.inf)


def _ratio_by_chance(num_tokens: int) -> float:
    """How large the ratio of two equal variances, each estimated from the tokens, becomes by chance.

    The logarithm of Fisher's F has the variance 2 / n + 2 / n for n independent values each.
    """
    independent = num_tokens / TOKENS_PER_VALUE
    return math.exp(DEVIATIONS_OF_NOISE * math.sqrt(4 / independent))


def _not_finite(ours: Floats, our_base: Floats) -> Comparison:
    trained = float(np.abs(ours - our_base).mean()) if np.isfinite(our_base).all() else math.inf
    return Comparison(len(ours), trained, math.inf, math.inf, math.inf, math.nan, math.inf, math.inf, 0.0)


def _flat(rows: Sequence[Sequence[float]]) -> Floats:
    return np.array([value for row in rows for value in row], dtype=np.float64)


@dataclass(frozen=True)
class HeadComparison:
    """The greatest difference of any output of any row, as a share of what is tolerated: above 1 is too much."""

    num_rows: int
    difference: float  # between trainer and engine
    effect: float  # between the trainer with the tuning and without it

    @property
    def contradicts(self) -> bool:
        return not self.difference <= 1

    @property
    def decisive(self) -> bool:
        """Whether an engine that leaves the tuning out would have been refused."""
        return self.effect > 2


def compare_heads(
    rows: Sequence[HeadRow], served: Sequence[Sequence[float]], dtype: str, *, vectors: bool = False
) -> HeadComparison:
    """`served` are an engine's outputs for the rows; `dtype` is the base's. `vectors`: those of a row are one vector.

    Raises ValueError where shapes differ.
    """
    if not rows or len(rows) != len(served):
        raise ValueError("the engine did not compute the rows that the trainer did")
    tolerance, greatest = HEAD_TOLERANCE[dtype], _apart if vectors else _greatest
    difference = max(greatest(row.values, theirs, tolerance) for row, theirs in zip(rows, served, strict=True))
    effect = max(greatest(row.values, row.base_values, tolerance) for row in rows)
    return HeadComparison(len(rows), difference, effect)


def _greatest(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> float:
    if len(ours) != len(theirs):
        return math.inf
    shares = [abs(a - b) / (tolerance * (1 + max(0.0, abs(a) - 1))) for a, b in zip(ours, theirs, strict=True)]
    return math.inf if any(math.isnan(share) for share in shares) else max(shares)


def _apart(ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> float:
    if len(ours) != len(theirs):
        return math.inf
    share = math.dist(ours, theirs) / tolerance
    return math.inf if math.isnan(share) else share
