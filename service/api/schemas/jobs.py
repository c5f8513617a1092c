"""What creates a fine-tuning job, on the wire (openai-api reference, 1.3.2). Responses are in `job_objects`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, create_model

from service.api.schemas.fields import Text, Wire
from service.domain.errors import InvalidRequest
from service.recipes.fields import Whole
from service.recipes.objective import OBJECTIVES, Hyperparameters, ObjectiveSettings, camel, hyperparameters_type
from service.recipes.safeguards import EarlyStopping, Selection
from service.recipes.served_form import AskedForm, FormName, FormRank, MinShare
from service.recipes.tuning import TUNINGS, TuningSettings

SEED_MAXIMUM = 2**31 - 1

MetadataKey = Annotated[Text, StringConstraints(max_length=64)]
MetadataValue = Annotated[Text, StringConstraints(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Name = Annotated[Text, StringConstraints(min_length=1)]
Tag = Annotated[Text, StringConstraints(max_length=64)]


class Wandb(Wire):
    """Settings of the Weights & Biases integration, as OpenAI takes them."""

    project: Name
    name: Text | None = None
    entity: Text | None = None
    tags: Annotated[list[Tag], Field(max_length=50)] | None = None


class Integration(Wire):
    """An integration: stored with the job as it was sent; an event reports where it cannot run."""

    type: Literal["wandb"]
    wandb: Wandb


class MethodSettings(Wire):
    """Settings of one method: the type of its `hyperparameters` is the objective's."""

    hyperparameters: Hyperparameters | None = None


class MethodChoice(Wire):
    """Which loss, with its settings; those of other types than `type` are not used, and an event reports them."""

    type: str

    @property
    def hyperparameters(self) -> Hyperparameters | None:
        """Those of the method in use."""
        given = dict(self).get(self.type)
        return given.hyperparameters if isinstance(given, MethodSettings) else None

    @property
    def idle(self) -> list[str]:
        """The methods whose settings were given and are not used."""
        return [name for name, value in self if value is not None and name not in ("type", self.type)]


class TuningChoice(BaseModel):
    """Luthier's own field `tuning`: which parameters move. The settings of the named type only."""

    model_config = ConfigDict(extra="forbid")

    type: str
    serve_as: Annotated[
        FormName | None,
        Field(
            description="Serve the model as a LoRA that is computed from what is trained, which every engine serves."
        ),
    ] = None
    serve_rank: Annotated[
        FormRank | None,
        Field(
            description="Rank of that LoRA; lower than the tuning's own to serve less than is trained. Without it: the "
            "rank that computes the same, or the highest that the base's engines serve."
        ),
    ] = None
    serve_min_share: Annotated[
        MinShare | None,
        Field(
            description="Refuse the model where its LoRA keeps less than this share of the squared norm of what the "
            "training changed; 0.9 without it."
        ),
    ] = None

    @property
    def form(self) -> AskedForm:
        """How the model is to be served."""
        return AskedForm(self.serve_as, self.serve_rank, self.serve_min_share)

    def chosen(self) -> TuningSettings:
        """The settings, defaults filled in. Raises InvalidRequest for another type's settings."""
        given = {name: value for name, value in self if isinstance(value, TuningSettings)}
        for other in given.keys() - {self.type}:
            raise InvalidRequest(
                f"'tuning.{other}' was given, but the tuning's type is '{self.type}'.", param=f"tuning.{other}"
            )
        found = TUNINGS.find(self.type)
        assert found is not None, "the field's type names the registered ones"
        return given.get(self.type) or found()


def _optional(type_: type[BaseModel]) -> Any:
    return (type_ | None, None)


def _method_settings(objective: type[ObjectiveSettings]) -> type[MethodSettings]:
    about = f"Settings of the method {objective.name}."
    fields = {"hyperparameters": _optional(hyperparameters_type(objective))}
    return create_model(camel(objective.name), __base__=MethodSettings, __doc__=about, **fields)


def _method_type() -> type[MethodChoice]:
    """`reinforcement` is OpenAI's: no type here; its settings beside another type are idle, as any other method's."""
    fields: dict[str, Any] = {"type": (Literal[(*OBJECTIVES.names,)], ...)}
    fields |= {objective.name: _optional(_method_settings(objective)) for objective in OBJECTIVES}
    fields |= {"reinforcement": (dict[str, Any] | None, None)}
    return create_model("Method", __base__=MethodChoice, __doc__=MethodChoice.__doc__, **fields)


def _tuning_type() -> type[TuningChoice]:
    fields: dict[str, Any] = {"type": (Literal[(*TUNINGS.names,)], TUNINGS.default.name)}
    fields |= {tuning.name: _optional(tuning) for tuning in TUNINGS}
    return create_model("Tuning", __base__=TuningChoice, __doc__=TuningChoice.__doc__, **fields)


if TYPE_CHECKING:
    Method = MethodChoice
    Tuning = TuningChoice
else:  # their fields are known once the methods are registered
    Method = _method_type()
    Tuning = _tuning_type()


class CreateCheck(Wire):
    """The body of POST /v1/fine_tuning/checks, and of a job; `tuning` and what follows it are Luthier's own."""

    model: Name
    training_file: Name
    validation_file: Name | None = None
    hyperparameters: Annotated[
        Hyperparameters | None, Field(deprecated=True, description="Use the hyperparameters in `method`.")
    ] = None
    method: Method | None = None
    suffix: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    seed: Annotated[int, Field(ge=0, le=SEED_MAXIMUM), Whole] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Integration], Field(max_length=5)] | None = None
    tuning: Tuning | None = None
    early_stopping: Annotated[
        EarlyStopping | None, Field(description="End the training once the validation file no longer improves.")
    ] = None
    checkpoint_selection: Annotated[
        Selection | None,
        Field(description="Which step the model is of: `last` (the default), or `best` on the validation file."),
    ] = None
    forgetting_report: Annotated[
        bool | None, Field(strict=True, description="Measure a general text before and after the training.")
    ] = None


class CreateJob(CreateCheck):
    """The body of POST /v1/fine_tuning/jobs."""

    check: Annotated[
        Name | None,
        Field(description="The id of a check of this very job that found no problem: the files are not read again."),
    ] = None
