"""When a training ends and which step is its best: worked by hand, over what was measured."""

import pytest

from service.domain.errors import JobError
from service.recipes.safeguards import EarlyStopping, Safeguards
from workers.trainer.process.decision import Evaluation, best, ends_early, without_improvement

LOSS, ACCURACY = "full_valid_loss", "full_valid_mean_token_accuracy"


def evaluations(*values: float, metric: str = LOSS) -> list[Evaluation]:
    return [Evaluation(step=10 * (number + 1), metrics={metric: value}) for number, value in enumerate(values)]


def ends_after(rule: EarlyStopping, *values: float) -> int | None:
    """The number of evaluations after which the training ends."""
    seen = evaluations(*values, metric=rule.metric)
    safeguards = Safeguards(early_stopping=rule)
    return next((count for count in range(len(seen) + 1) if ends_early(seen[:count], safeguards)), None)


def test_a_training_ends_after_patience_evaluations_without_an_improvement() -> None:
    assert ends_after(EarlyStopping(patience=1), 3.0, 2.0, 2.0, 1.0) == 3
    assert ends_after(EarlyStopping(patience=2), 3.0, 2.0, 2.0, 1.9, 2.0, 2.1, 1.0) == 6
    assert ends_after(EarlyStopping(patience=3), 3.0, 2.0, 2.0, 1.9, 2.0, 2.1, 1.0) is None


def test_only_more_than_min_delta_is_an_improvement_and_small_gains_add_up() -> None:
    assert ends_after(EarlyStopping(patience=2, min_delta=0.5), 3.0, 2.8, 2.6, 2.4) == 3
    assert ends_after(EarlyStopping(patience=2, min_delta=0.5), 3.0, 2.7, 2.4, 2.1, 1.8) is None
    assert ends_after(EarlyStopping(patience=1, min_delta=0.5), 3.0, 2.5) == 2  # exactly min_delta is none


def test_what_is_no_loss_is_better_when_it_is_larger() -> None:
    rule = EarlyStopping(patience=1, metric=ACCURACY)
    assert ends_after(rule, 0.1, 0.5, 0.5) == 3
    assert best(evaluations(0.1, 0.5, 0.4, metric=ACCURACY), ACCURACY).step == 20
    assert best(evaluations(0.1, 0.5, 0.4), LOSS).step == 10


def test_of_equals_the_first_is_the_best() -> None:
    assert best(evaluations(2.0, 1.0, 1.0, 3.0), LOSS).step == 20


def test_without_a_rule_no_training_ends_early() -> None:
    assert not ends_early(evaluations(1.0, 2.0, 3.0), Safeguards(checkpoint_selection="best"))
    assert without_improvement([], EarlyStopping()) == 0


def test_a_metric_that_was_not_measured_fails_the_job_and_names_those_that_were() -> None:
    with pytest.raises(JobError) as raised:
        best(evaluations(1.0), ACCURACY)
    assert raised.value.code == "metric_missing" and LOSS in raised.value.message
