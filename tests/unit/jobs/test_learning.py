"""What a job's user is told at the end about a training that taught the model little."""

import pytest

from workers.jobs.learning import Learning


@pytest.mark.parametrize(
    ("start", "end", "accuracy", "said"),
    [
        (3.2, 0.4, 0.9, None),
        (3.2, 0.4, None, None),  # an objective without right tokens
        (0.7, 0.69, None, "learnt little: its loss went from 0.700 to 0.690 in 40 steps. Try"),
        (1.0, 1.5, 0.6, "ended above its start: 1.500 after 40 steps, from 1.000. Try a smaller"),
        (6.0, 5.0, 0.08, "from 6.000 to 5.000 in 40 steps, and 8% of the tokens are right. Try more epochs"),
        (1.0, 1.01, 0.6, "learnt little"),  # noise, no rise
    ],
)
def test_a_training_that_taught_little_says_so_with_its_numbers(
    start: float, end: float, accuracy: float | None, said: str | None
) -> None:
    event = Learning(40, start, end, accuracy).event()
    if said is None:
        assert event is None
    else:
        assert event is not None
        assert said in event.message
        assert event.level == "warn"
        assert event.data["loss_at_start"] == start
        assert event.data["loss_at_end"] == end
