"""Whether a training learnt anything: its first steps' metrics against its last ones', from the job's own events.

A job whose loss did not fall is announced all the same, since only its user knows what it is for; an event says so,
with the numbers and what to try. Called by `announce`; reads the database in batches, and stores nothing.
"""

from dataclasses import dataclass

from service.domain import event as wording
from service.domain.event import NewEvent
from service.domain.job import Job
from service.installation.context import Context
from service.operations import lookups

SHARE = 10  # the first and the last tenth of the steps are compared: single steps are noisy
FEWEST_STEPS = 4  # below, the examples of two steps differ by more than a training changes
RISEN = 1.02  # end / start of a loss that rose, beyond noise
UNCHANGED = 0.98  # and of one that did not fall
USELESS_ACCURACY = 0.1  # of trained tokens: right words by chance are about as frequent
BATCH = 500
LOSS, ACCURACY = "train_loss", "train_mean_token_accuracy"


@dataclass
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass(frozen=True)
class Learning:
    """Means over the first and the last steps; the accuracy is of objectives that predict tokens."""

    num_steps: int
    loss_at_start: float
    loss_at_end: float
    accuracy_at_end: float | None

    def event(self) -> NewEvent | None:
        """What the user should know, or None for a job that has learnt."""
        start, end, accuracy = self.loss_at_start, self.loss_at_end, self.accuracy_at_end
        if end > RISEN * start:
            return wording.loss_rose(start, end, self.num_steps)
        useless = accuracy is not None and accuracy < USELESS_ACCURACY
        if end > UNCHANGED * start or useless:
            return wording.learnt_little(start, end, accuracy, self.num_steps)
        return None


async def learning_of(ctx: Context, job: Job) -> Learning | None:
    """None for a job of so few steps that nothing can be said."""
    num_steps = job.total_steps or 0
    if num_steps < FEWEST_STEPS:
        return None
    window = max(1, num_steps // SHARE)
    start, end, accuracy = _Mean(), _Mean(), _Mean()
    sequence = 0
    while batch := await lookups.metrics_since(ctx, job.id, sequence, BATCH):
        for _, metrics in batch:
            if metrics["step"] <= window:
                start.add(metrics.get(LOSS))
            if metrics["step"] > num_steps - window:
                end.add(metrics.get(LOSS))
                accuracy.add(metrics.get(ACCURACY))
        sequence, _ = batch[-1]
    if start.value is None or end.value is None:
        return None
    return Learning(num_steps, start.value, end.value, accuracy.value)
