"""What a job may be asked to watch while it trains: when to end early, which step is published, what it forgets.

On the wire they are fields of the job itself, beside `tuning`; a job that asks for none of them is trained and shown
as if they did not exist. Without tensors: `workers.trainer.process` measures, and decides with `Safeguards`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.domain.errors import InvalidRequest
from service.domain.json import JsonObject
from service.recipes.base import Base
from service.recipes.fields import Integer, MethodFields, Number, Whole
from service.recipes.objective import ObjectiveSettings
from service.recipes.tasks import TASKS

FULL_VALIDATION = "full_valid_"
LOSS = FULL_VALIDATION + "loss"
EPOCHS_LIMIT = 50  # as `n_epochs`

Selection = Literal["last", "best"]


class EarlyStopping(MethodFields):
    """End the training at the end of an epoch, once the validation file says that it no longer improves."""

    patience: Annotated[Integer, Field(ge=1, le=EPOCHS_LIMIT), Whole] = Field(
        1, description="ends after so many epochs in a row without an improvement"
    )
    min_delta: Annotated[Number, Field(ge=0)] = Field(0.0, description="an improvement is a change of more than this")
    metric: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        LOSS,
        description="what is watched: `full_valid_loss`, or another metric of the method on the whole validation file. "
        "One whose name ends in `loss` is better when it is smaller, any other when it is larger",
    )


class Safeguards(BaseModel):
    """A job's safeguards, as they are stored with it and given to the trainer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    early_stopping: EarlyStopping | None = None
    checkpoint_selection: Selection | None = None  # None: the last, and nothing is said of it
    forgetting_report: bool = False

    @property
    def metric(self) -> str:
        """What decides, of the metrics at the end of an epoch."""
        return LOSS if self.early_stopping is None else self.early_stopping.metric

    @property
    def best_is_published(self) -> bool:
        return self.checkpoint_selection == "best"

    @property
    def measures(self) -> bool:
        """Whether anything depends on the validation file."""
        return self.early_stopping is not None or self.best_is_published

    def stored(self) -> JsonObject | None:
        """For a row of the database; None where nothing was asked for. `safeguards_of` reads it."""
        asked = {name for name, value in self if value}  # whole: a later version may have other defaults
        return self.model_dump(include=asked) or None


def safeguards_of(stored: Mapping[str, Any] | None) -> Safeguards:
    """What `stored` gave."""
    return Safeguards.model_validate(stored or {})


def check_safeguards(
    safeguards: Safeguards, objective: type[ObjectiveSettings], base: Base, *, has_validation: bool
) -> None:
    """Raises InvalidRequest for what the job could not do."""
    if safeguards.measures and not has_validation:
        field = "early_stopping" if safeguards.early_stopping is not None else "checkpoint_selection"
        raise InvalidRequest(
            f"'{field}' needs a validation file, which says whether the training still improves: give "
            "'validation_file', with rows that are not trained.",
            param="validation_file",
            code="missing_required_parameter",
        )
    watched = [FULL_VALIDATION + name for name in ("loss", *objective.metrics, *objective.file_metrics)]
    if safeguards.measures and safeguards.metric not in watched:
        raise InvalidRequest(
            f"Invalid value: '{safeguards.metric}'. Jobs of the method '{objective.name}' measure at the end of each "
            f"epoch: {', '.join(watched)}.",
            param="early_stopping.metric",
            code="invalid_value",
        )
    if safeguards.forgetting_report and (base.kind != "causal" or TASKS[objective.task].has_head):
        raise InvalidRequest(
            f"'forgetting_report' measures how well a model continues text, which '{base.id}' does not do: leave it "
            "out.",
            param="forgetting_report",
        )
