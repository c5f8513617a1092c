"""Whether a training ends early, and which of its steps is published: pure functions of what was measured.

Without tensors and without a clock. What was measured is part of the snapshot, so a job that is resumed, anywhere,
decides as an undisturbed one does.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from service.domain.errors import JobError
from service.recipes.safeguards import EarlyStopping, Safeguards


class Evaluation(BaseModel):
    """The metrics at the end of an epoch, those of the whole validation file among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    metrics: dict[str, int | float]

    def value(self, metric: str) -> float:
        """Raises JobError where it was not measured."""
        if metric not in self.metrics:
            measured = ", ".join(sorted(self.metrics))
            message = f"The job decides by '{metric}', which was not measured; measured were: {measured}."
            raise JobError("metric_missing", message, param="early_stopping.metric")
        return self.metrics[metric]


def badness(evaluation: Evaluation, metric: str) -> float:
    """The metric with a sign: the smaller, the better. Losses are better when they are smaller, the others when they
    are larger: the rule of transformers' `metric_for_best_model`."""
    value = evaluation.value(metric)
    return value if metric.endswith("loss") else -value


def best(evaluations: Sequence[Evaluation], metric: str) -> Evaluation:
    """The best one, the first of equals: fewer steps did as much. Raises ValueError without any."""
    return min(evaluations, key=lambda one: (badness(one, metric), one.step))


def without_improvement(evaluations: Sequence[Evaluation], rule: EarlyStopping) -> int:
    """How many evaluations have passed since the last improvement.

    An improvement is better by more than `min_delta` than the last improvement was, so that many small gains add up to
    one (as in Keras and Lightning). The first evaluation is one.
    """
    reference: float | None = None
    waited = 0
    for one in evaluations:
        now = badness(one, rule.metric)
        if reference is None or now < reference - rule.min_delta:
            reference, waited = now, 0
        else:
            waited += 1
    return waited


def ends_early(evaluations: Sequence[Evaluation], safeguards: Safeguards) -> bool:
    """Whether nothing more is to be expected of this training."""
    rule = safeguards.early_stopping
    return rule is not None and without_improvement(evaluations, rule) >= rule.patience
