"""Fine-tuning jobs, their events and checkpoints in responses (openai-api reference, 1.3.3 to 1.3.7).

Keys have the order of OpenAI's real responses; `progress`, `tuning` and what follows at the end of a job are Luthier's
own. What a job did not ask for of the latter is left out.
"""

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from service.api.schemas.api_keys import ApiKeyReference
from service.domain.duration import job_seconds
from service.domain.event import Event, Kind, Level
from service.domain.job import FINAL, Job, Status, named_after
from service.domain.json import JsonObject
from service.operations.jobs import CheckpointView, JobView
from service.recipes.fields import Auto
from service.recipes.objective import OBJECTIVES, ObjectiveSettings, camel
from service.recipes.safeguards import EarlyStopping, Selection, safeguards_of

LEFT_OUT = Field(exclude_if=lambda value: value is None)  # such as a metric that was not measured


class JobHyperparameters(BaseModel):
    """ "auto" until the files are validated, then the resolved number."""

    n_epochs: Auto | int
    batch_size: Auto | int
    learning_rate_multiplier: Auto | float


def _method_type(objective: type[ObjectiveSettings]) -> type[BaseModel]:
    """The loss of a job, with what is known of its settings: `{"type": t, t: {"hyperparameters": {...}}}`."""
    prefix = camel(objective.name)
    # A job of an earlier version lacks those that came later: it has their defaults.
    own: dict[str, Any] = {name: (field.annotation, field.default) for name, field in objective.model_fields.items()}
    known = (
        create_model(f"{prefix}JobHyperparameters", __base__=JobHyperparameters, **own) if own else JobHyperparameters
    )
    settings = create_model(f"{prefix}Settings", hyperparameters=(known, ...))
    fields: dict[str, Any] = {"type": (Literal[objective.name], objective.name), objective.name: (settings, ...)}
    about = f"The loss of {objective.name} jobs, with what is known of its settings."
    return create_model(f"{prefix}Method", __doc__=about, **fields)


class OtherMethod(BaseModel):
    """The loss of jobs whose method this installation no longer has; its settings are beside `type`, by its name."""

    model_config = ConfigDict(extra="allow")

    type: str


_METHODS: dict[str, type[BaseModel]] = {objective.name: _method_type(objective) for objective in OBJECTIVES}
if TYPE_CHECKING:
    JobMethod = BaseModel
else:  # the objectives are known once they are registered
    JobMethod = Union[(*_METHODS.values(), OtherMethod)]


class JobFailure(BaseModel):
    """Why the job failed."""

    code: str
    message: str
    param: str | None


class Progress(BaseModel):
    """How far the job is. `queue_position` counts the jobs before it, and is null once it has left the queue."""

    percent: float
    step: int
    total_steps: int | None
    seconds_remaining: int | None
    queue_position: int | None

    @classmethod
    def of(cls, view: JobView) -> "Progress":
        job = view.job
        return cls(
            percent=_percent(job),
            step=job.step,
            total_steps=job.total_steps,
            seconds_remaining=_seconds_remaining(view),
            queue_position=view.queue_position,
        )


class JobObject(BaseModel):
    """OpenAI's `fine_tuning.job`."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    id: str
    model: str
    created_at: int
    finished_at: int | None
    fine_tuned_model: str | None
    organization_id: str
    result_files: list[str]
    status: Status
    validation_file: str | None
    training_file: str
    hyperparameters: JobHyperparameters
    trained_tokens: int | None
    error: JobFailure | None
    user_provided_suffix: str | None
    seed: int
    estimated_finish: int | None
    integrations: list[JsonObject]
    metadata: dict[str, str] | None
    usage_metrics: None = None
    shared_with_openai: bool = False
    eval_id: None = None
    method: JobMethod
    progress: Progress
    tuning: JsonObject
    early_stopping: Annotated[EarlyStopping | None, LEFT_OUT] = None
    checkpoint_selection: Annotated[Selection | None, LEFT_OUT] = None
    forgetting_report: Annotated[bool | None, LEFT_OUT] = None
    api_key: Annotated[ApiKeyReference | None, LEFT_OUT] = Field(None, description="The API key that created the job.")

    @classmethod
    def of(cls, view: JobView, organization_id: str) -> "JobObject":
        job = view.job
        remaining = _seconds_remaining(view)
        safeguards = safeguards_of(job.safeguards)
        return cls(
            id=job.id,
            model=job.parent_model or named_after(job),
            created_at=job.created_at,
            finished_at=job.finished_at,
            fine_tuned_model=job.fine_tuned_model,
            organization_id=organization_id,
            result_files=[] if job.result_file is None else [job.result_file, *(job.report_files or [])],
            status=job.status,
            validation_file=job.validation_file,
            training_file=job.training_file,
            hyperparameters=JobHyperparameters(**job.hyperparameters),
            trained_tokens=job.trained_tokens if job.status in FINAL else None,
            error=None if job.error is None else JobFailure(**job.error),
            user_provided_suffix=job.suffix,
            seed=job.seed,
            estimated_finish=None if remaining is None else int(time.time()) + remaining,
            integrations=job.integrations,
            metadata=job.metadata,
            method=_method(job),
            progress=Progress.of(view),
            tuning=job.tuning,
            early_stopping=safeguards.early_stopping,
            checkpoint_selection=safeguards.checkpoint_selection,
            forgetting_report=safeguards.forgetting_report or None,
            api_key=None if job.key_id is None else ApiKeyReference(id=job.key_id, name=job.key_name or ""),
        )


class EventObject(BaseModel):
    """OpenAI's `fine_tuning.job.event`."""

    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    id: str
    created_at: int
    level: Level
    message: str
    type: Kind
    data: JsonObject

    @classmethod
    def of(cls, event: Event) -> "EventObject":
        return cls(
            id=event.id,
            created_at=event.created_at,
            level=event.level,
            message=event.message,
            type=event.type,
            data=dict(event.data),
        )


class CheckpointMetrics(BaseModel):
    """OpenAI's `metrics`, and those of other objectives; `step` is a whole number, which strict clients insist on.

    `type` is the job's method, which OpenAI sends although its reference has no such field."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    step: int
    train_loss: Annotated[float | None, LEFT_OUT] = None
    train_mean_token_accuracy: Annotated[float | None, LEFT_OUT] = None
    valid_loss: Annotated[float | None, LEFT_OUT] = None
    valid_mean_token_accuracy: Annotated[float | None, LEFT_OUT] = None
    full_valid_loss: Annotated[float | None, LEFT_OUT] = None
    full_valid_mean_token_accuracy: Annotated[float | None, LEFT_OUT] = None
    type: str


class CheckpointObject(BaseModel):
    """OpenAI's `fine_tuning.job.checkpoint`."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    id: str
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int

    @classmethod
    def of(cls, view: CheckpointView) -> "CheckpointObject":
        checkpoint = view.checkpoint
        return cls(
            id=checkpoint.id,
            created_at=checkpoint.created_at,
            fine_tuned_model_checkpoint=checkpoint.model_name,
            fine_tuning_job_id=checkpoint.job_id,
            metrics=CheckpointMetrics(**{"step": checkpoint.step, **checkpoint.metrics, "type": view.objective}),
            step_number=checkpoint.step,
        )


def _method(job: Job) -> BaseModel:
    return _METHODS.get(job.objective, OtherMethod)(
        **{"type": job.objective, job.objective: {"hyperparameters": job.hyperparameters}}
    )


def _percent(job: Job) -> float:
    if job.status == "succeeded":
        return 100.0
    return round(100 * job.step / job.total_steps, 1) if job.total_steps else 0.0


def _seconds_remaining(view: JobView) -> int | None:
    """Known while the job runs and has made a step: the steps that are left, and the announcement after them."""
    job = view.job
    if job.status != "running" or job.total_steps is None or job.seconds_per_step is None:
        return None
    return round(job_seconds(job.total_steps - job.step, job.seconds_per_step, view.announce_seconds))
