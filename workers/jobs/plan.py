"""What follows from files that are valid: a number for every "auto", the steps, and what the user should know first.

For a job's validation and for a check alike.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from service.domain import event as wording
from service.domain.event import NewEvent
from service.domain.json import JsonObject
from service.recipes.base import Base
from service.recipes.objective import find_objective, resolve_auto
from service.recipes.safeguards import safeguards_of
from service.recipes.tuning import tuning_of
from workers.data.batches import steps_per_epoch
from workers.jobs.datasets import FileDatasets
from workers.jobs.staging import learning_rate

# Of the base's rate for a tuning. Wide, so that no deliberate choice is warned of.
SMALLEST_MULTIPLIER, LARGEST_MULTIPLIER = 0.01, 30.0


class Asked(Protocol):
    """What a job and a check have in common."""

    @property
    def objective(self) -> str: ...

    @property
    def tuning(self) -> JsonObject: ...

    @property
    def hyperparameters(self) -> JsonObject: ...

    @property
    def safeguards(self) -> JsonObject | None: ...


@dataclass(frozen=True)
class JobPlan:
    """What a job of these files will do."""

    hyperparameters: JsonObject
    learning_rate: float
    steps_per_epoch: int
    warnings: list[NewEvent]

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * int(self.hyperparameters["n_epochs"])


async def plan_job(base: Base, asked: Asked, num_examples: int, datasets: FileDatasets) -> JobPlan:
    """For a training file of `num_examples` examples. Raises JobError for a method that is missing."""
    resolved = resolve_auto(find_objective(asked.objective), asked.hyperparameters, num_examples)
    usual = await learning_rate(base, tuning_of(asked.tuning))
    multiplier = resolved["learning_rate_multiplier"]
    warnings = []
    if base.serving.engine == "vllm" and await asyncio.to_thread(datasets.prints_the_date):
        warnings.append(wording.date_in_prompt(datasets.subject.day))  # the embedded engine keeps the training's date
    if not SMALLEST_MULTIPLIER <= multiplier <= LARGEST_MULTIPLIER:
        # An absolute rate under the name of a multiplier would train nothing; the base's own rate is plausible.
        warnings.append(wording.implausible_rate(multiplier * usual, usual, multiplier))
    warnings += _idle_patience(asked, resolved["n_epochs"])
    return JobPlan(resolved, multiplier * usual, steps_per_epoch(num_examples, resolved["batch_size"]), warnings)


def _idle_patience(asked: Asked, n_epochs: int) -> list[NewEvent]:
    """The first evaluation is an improvement, so the earliest end is after patience + 1 of them."""
    rule = safeguards_of(asked.safeguards).early_stopping
    if rule is None or n_epochs >= rule.patience + 2:
        return []
    return [wording.early_stopping_idle(rule.patience, n_epochs)]
