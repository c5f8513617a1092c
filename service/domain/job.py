"""A fine-tuning job and its state machine.

                             +--------- paused ---> cancelled
                             v            ^
    validating_files --> queued --> running --> succeeded
            |              |           |
            +--------------+-----------+------> failed | cancelled

A lost worker changes no status: its lease runs out and another worker claims the same work. A job that has trained is
`running` too: `publication` says what was stored, and its next work announces it. So is a job that gave its slot to
another project for a while. A pause is asked for on the row and becomes `paused` when the worker has brought the job to
rest. Times are unix seconds.
"""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Literal, TypeAlias

from service.domain.errors import IllegalTransition
from service.domain.json import JsonObject

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]

TRANSITIONS: dict[Status, frozenset[Status]] = {
    "validating_files": frozenset({"queued", "failed", "cancelled"}),
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
FINAL: frozenset[Status] = frozenset(status for status, following in TRANSITIONS.items() if not following)
ACTIVE: frozenset[Status] = frozenset(TRANSITIONS) - FINAL


@dataclass(frozen=True)
class Job:
    """One row of the jobs table. Who works on it is a row of `service.domain.work`."""

    id: str
    project_id: str
    base: str
    training_file: str
    validation_file: str | None
    objective: str
    tuning: JsonObject  # {"type": t, t: settings}; `service.recipes.tuning.tuning_of` reads it
    hyperparameters: JsonObject  # of the objective; "auto" until the files are validated
    seed: int
    suffix: str | None
    status: Status
    created_at: int
    parent_model: str | None = None
    metadata: dict[str, str] | None = None
    integrations: list[JsonObject] = field(default_factory=list)
    started_at: int | None = None
    finished_at: int | None = None
    error: JsonObject | None = None
    fine_tuned_model: str | None = None
    result_file: str | None = None
    trained_tokens: int | None = None
    step: int = 0
    total_steps: int | None = None
    seconds_per_step: float | None = None
    training_data: str | None = None  # key of the tokenised training file, from its check on
    validation_data: str | None = None
    alias: str | None = None  # of its base, which it or its parent was created through: its models are named after it
    pause_requested_at: int | None = None  # set while a running job is to come to rest
    report_files: list[str] | None = None  # its result files besides the metrics
    publication: JsonObject | None = None  # a `Publication`, once the training is over and its artifact stored
    safeguards: JsonObject | None = (
        None  # `service.recipes.safeguards.safeguards_of` reads it; None: none were asked for
    )
    key_id: str | None = None  # whose API key created it; None for a job of a version that did not record it
    key_name: str | None = None  # the key's name at that time


def named_after(job: Job) -> str:
    """What the names of the job's models say for its base: the alias that it was created through, or the base's id."""
    return job.alias or job.base


def template_date(job: Job) -> date:
    """What the base's chat template is given as today's, in training and when the model is asked: the day of its job.

    So a template that prints the date makes the same prompts whenever a job is validated again, and ever after.
    """
    return datetime.fromtimestamp(job.created_at, UTC).date()


def check_transition(job: Job, target: Status) -> None:
    """Raises IllegalTransition, in the user's words, unless `job` may become `target`."""
    if target in TRANSITIONS[job.status]:
        return
    verb = {"cancelled": "cancelled", "running": "started", "paused": "paused"}.get(target, f"moved to {target}")
    raise IllegalTransition(f"Job {job.id} cannot be {verb}: its status is '{job.status}'.")


def check_resumable(job: Job) -> None:
    """Raises IllegalTransition unless `job` is paused, or running and perhaps about to pause."""
    if job.status not in ("paused", "running"):
        raise IllegalTransition(f"Job {job.id} cannot be resumed: its status is '{job.status}'.")


Metrics: TypeAlias = dict[str, int | float]  # by OpenAI's names


@dataclass(frozen=True)
class Checkpoint:
    """A public adapter at a step, as the checkpoints endpoint lists it."""

    id: str
    job_id: str
    step: int
    model_name: str
    metrics: dict[str, int | float]
    created_at: int


@dataclass(frozen=True)
class Publication:
    """A finished training: its artifact is stored, and its name is public once an engine agrees with it.

    `step` is the one whose weights it has, which may be an earlier one than the last.
    """

    name: str
    step: int
    metrics: dict[str, int | float]  # of that step
    sample: str  # key of the rows that the trainer has scored
    sample_sha256: str
    num_steps: int | None = None  # how many were trained; None: as many as were planned


@dataclass(frozen=True)
class Snapshot:
    """Private state from which a job continues exactly; `files` maps names to sha256."""

    job_id: str
    step: int
    prefix: str
    files: dict[str, str]
