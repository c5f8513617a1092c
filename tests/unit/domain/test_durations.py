"""How long a job takes, predicted from made-up jobs whose law is known."""

import random

import pytest

from service.domain.duration import Measured, predict, student_quantile

START_SECONDS, STEP_SECONDS, TOKEN_SECONDS = 20.0, 0.2, 0.001


def job(noise: random.Random, spread: float = 0.15) -> Measured:
    """20 s, and steps that take 0.2 s and 1 ms per token, all of it off by a factor of its own."""
    steps, step_tokens = noise.choice([20, 80, 300]), noise.choice([50, 200, 1000])
    factor = noise.lognormvariate(0, spread)
    per_step = factor * (STEP_SECONDS + TOKEN_SECONDS * step_tokens)
    return Measured(steps, steps * step_tokens, per_step, factor * START_SECONDS + steps * per_step)


@pytest.mark.parametrize(("degrees", "printed"), [(2, 2.920), (5, 2.015), (10, 1.812), (30, 1.697)])
def test_quantiles_are_those_of_printed_tables(degrees: int, printed: float) -> None:
    assert student_quantile(0.95, degrees) == pytest.approx(printed, rel=0.004)


def test_equal_jobs_take_what_they_took() -> None:
    seconds, low, high = predict(10, 500, [Measured(10, 500, 2.0, 50.0)] * 3)
    assert (seconds, high - low <= 2, low <= 50 <= high) == (50, True, True)


def test_steps_of_another_size_take_another_time() -> None:
    past = [Measured(10, 10 * size, size**0.5, 10 * size**0.5) for size in (16, 64, 256)]
    seconds, low, high = predict(100, 100 * 1024, past)
    assert seconds == pytest.approx(100 * 32.0, rel=0.01) and low <= 3200 <= high


def test_the_interval_holds_nine_of_ten_jobs() -> None:
    noise, inside, predicted = random.Random(7), 0, 0
    for _ in range(40):
        past = [job(noise) for _ in range(20)]
        for number in range(5, 20):
            _, low, high = predict(past[number].steps, past[number].tokens, past[:number])
            inside += low <= past[number].seconds <= high
            predicted += 1
    assert 0.85 <= inside / predicted <= 0.98
