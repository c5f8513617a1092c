"""How long a job takes from its slot to its callable model: the estimate of a running job, and of one that does not
exist yet, with an interval. Pure arithmetic; what was measured is read by `service.operations.durations`.

A check predicts a job from those of the same base and method that have succeeded. A step's seconds follow from its
tokens; start and announcement are added. How far such predictions are off is found out by predicting every past job
from the others: the interval is the prediction interval of these ratios, which are taken as log-normal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, linear_regression, median, stdev

JOBS_NEEDED = 3
LEVEL = 0.9  # of the interval
SIZES_DIFFER = 2.0  # by this factor at least, before a step's seconds are said to follow its tokens in another way
SHORTEST_SECONDS = 0.5  # times are whole seconds


@dataclass(frozen=True)
class Duration:
    """Seconds that a job will take from its slot on, its announcement included: `low` to `high` with probability LEVEL.

    `based_on` jobs were measured, of all projects. `queue_position` jobs waited for a slot of the base when this was
    estimated; their time is not included.
    """

    seconds: int
    low: int
    high: int
    based_on: int
    queue_position: int


@dataclass(frozen=True)
class Measured:
    """A job that has succeeded; `tokens` of all its steps, `seconds` from its slot to its callable model."""

    steps: int
    tokens: int
    seconds_per_step: float
    seconds: float


def job_seconds(steps: int, seconds_per_step: float, rest_seconds: float) -> float:
    """What `steps` more steps take, and the rest that no step accounts for, such as the announcement."""
    return steps * seconds_per_step + rest_seconds


def uninterrupted(job: Measured, announce_seconds: float) -> bool:
    """False where most of the time was no training: the job was paused, or gave its slot to another project."""
    return job.seconds <= 2 * job_seconds(job.steps, job.seconds_per_step, announce_seconds) + 60


def predict(steps: int, tokens: int, past: Sequence[Measured]) -> tuple[int, int, int]:
    """Seconds, low, high of a job of `steps` steps and `tokens` tokens; `past` has at least JOBS_NEEDED jobs."""
    ratios = []
    for number, job in enumerate(past):
        others = [*past[:number], *past[number + 1 :]]
        expected = _expected(job.steps, job.tokens, others)
        ratios.append(math.log(max(job.seconds, SHORTEST_SECONDS) / max(expected, SHORTEST_SECONDS)))
    # ln(T / T^) of the next job lies in  m +- t(n-1) s sqrt(1 + 1/n)
    count, middle = len(ratios), fmean(ratios)
    half = student_quantile((1 + LEVEL) / 2, count - 1) * stdev(ratios) * math.sqrt(1 + 1 / count)
    expected = max(_expected(steps, tokens, past), SHORTEST_SECONDS)
    seconds, low, high = (expected * math.exp(middle + off) for off in (0.0, -half, half))
    return round(seconds), math.floor(low), math.ceil(high)


def _expected(steps: int, tokens: int, past: Sequence[Measured]) -> float:
    rest = median(max(0.0, job.seconds - job.steps * job.seconds_per_step) for job in past)
    return job_seconds(steps, _seconds_per_step(tokens / steps, past), rest)


def _seconds_per_step(step_tokens: float, past: Sequence[Measured]) -> float:
    """ln s = a + b ln k for steps of k tokens; b is 0 where a step takes as long for any k, and 1 in proportion.

    Jobs whose steps are of about one size say nothing about b: then it is 1.
    """
    sizes = [math.log(job.tokens / job.steps) for job in past]
    times = [math.log(job.seconds_per_step) for job in past]
    slope = 1.0
    if max(sizes) - min(sizes) >= math.log(SIZES_DIFFER):
        slope = min(1.0, max(0.0, linear_regression(sizes, times).slope))
    return math.exp(fmean(times) + slope * (math.log(step_tokens) - fmean(sizes)))


def student_quantile(probability: float, degrees: int) -> float:
    """Of Student's t distribution, from the normal one's x; within 0.4 % for 2 or more degrees of freedom and
    probabilities up to 0.95.

    t = x + g1/v + g2/v^2 + g3/v^3 + g4/v^4 (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5)
    """
    x = NormalDist().inv_cdf(probability)
    g1 = (x**3 + x) / 4
    g2 = (5 * x**5 + 16 * x**3 + 3 * x) / 96
    g3 = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    g4 = (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160
    return x + g1 / degrees + g2 / degrees**2 + g3 / degrees**3 + g4 / degrees**4
