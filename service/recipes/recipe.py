"""A recipe: an objective (which loss), a tuning (which parameters move), a task (what the model is for), as types."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from service.domain.errors import InvalidRequest
from service.domain.model import TaskName
from service.recipes.objective import ObjectiveSettings, objective_of
from service.recipes.tuning import TUNINGS, TuningSettings, tuning_of


def goes_with(objective: type[ObjectiveSettings], tuning: type[TuningSettings]) -> bool:
    """Whether engines compute with the tuning what the objective trains."""
    return objective.has_prompts or not tuning.edits_prompts


def check_goes_with(objective: type[ObjectiveSettings], tuning: TuningSettings) -> None:
    """Raises InvalidRequest where they do not go together."""
    if not goes_with(objective, type(tuning)):
        others = ", ".join(sorted(other.name for other in TUNINGS if goes_with(objective, other)))
        raise InvalidRequest(
            f"The tuning '{tuning.name}' changes what is computed of a prompt, and the rows of the method "
            f"'{objective.name}' have none; use one of: {others}.",
            param="tuning.type",
            code="method_not_available",
        )


AnyObjective = Annotated[
    ObjectiveSettings,
    BeforeValidator(lambda value: value if isinstance(value, ObjectiveSettings) else objective_of(value)),
    PlainSerializer(lambda settings: settings.stored()),
]
AnyTuning = Annotated[
    TuningSettings,
    BeforeValidator(lambda value: value if isinstance(value, TuningSettings) else tuning_of(value)),
    PlainSerializer(lambda settings: settings.stored()),
]


class Recipe(BaseModel):
    """What a job trains. As JSON its parts have the form `{"type": t, t: settings}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: AnyObjective
    tuning: AnyTuning
    task: TaskName = "generate"
