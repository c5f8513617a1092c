"""A recipe: an objective (which loss), a tuning (which parameters move), a task (what the model is for), as types."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from service.domain.model import TaskName
from service.recipes.objective import ObjectiveSettings, objective_of
from service.recipes.tuning import TuningSettings, tuning_of

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
