"""What creates a fine-tuning job, on the wire (openai-api reference, 1.3.2). Answers are in `job_objects`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.api.schemas.fields import Text
from service.domain.methods import DpoHyperparameters, Hyperparameters, Tuning, Whole

SEED_MAXIMUM = 2**31 - 1

MetadataKey = Annotated[Text, StringConstraints(max_length=64)]
MetadataValue = Annotated[Text, StringConstraints(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Name = Annotated[Text, StringConstraints(min_length=1)]
Tag = Annotated[Text, StringConstraints(max_length=64)]


class Wire(BaseModel):
    """A request object: no unknown fields, no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Wandb(Wire):
    """Settings of the Weights & Biases integration, as OpenAI takes them."""

    project: Name
    name: Text | None = None
    entity: Text | None = None
    tags: Annotated[list[Tag], Field(max_length=50)] | None = None


class Integration(Wire):
    """An integration: kept with the job as it was sent; where it cannot be run, an event says so."""

    type: Literal["wandb"]
    wandb: Wandb


class Supervised(Wire):
    """Settings of the supervised method."""

    hyperparameters: Hyperparameters | None = None


class Dpo(Wire):
    """Settings of direct preference optimization."""

    hyperparameters: DpoHyperparameters | None = None


class Method(Wire):
    """Which loss, with its settings; those of other types than `type` are not used, which an event says."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: dict[str, Any] | None = None


class CreateJob(Wire):
    """The body of POST /v1/fine_tuning/jobs; `tuning` is Luthier's own field."""

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
