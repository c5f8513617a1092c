"""Models on the wire (openai-api reference, 1.6)."""

from typing import Literal

from pydantic import BaseModel, Field

from service.domain.model import TaskName
from service.domain.model_merge import ModelMerge, Status
from service.operations.models import ModelView
from service.recipes.tasks import BaseKind


class ModelObject(BaseModel):
    """OpenAI's model object, with `kind`, `task` and `imported` besides."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    shutdown_date: None = None  # a model stays until its owner deletes it
    kind: BaseKind | None = Field(description="What kind of base it is or stands on; null: that base is gone.")
    task: TaskName | None = Field(
        description="What it is for: `generate` text, `classify` it or `embed` it; null for a model alias."
    )

    imported: bool = Field(False, description="Whether it was trained elsewhere and imported.")

    @classmethod
    def of(cls, model: ModelView) -> "ModelObject":
        return cls(
            id=model.id,
            created=model.created_at,
            owned_by=model.owner,
            kind=model.kind,
            task=model.task,
            imported=model.imported,
        )


class ModelList(BaseModel):
    """Every model at once: OpenAI does not paginate this list."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class ModelMergeObject(BaseModel):
    """A model that is being merged into its base."""

    object: Literal["model.merge"] = "model.merge"
    model: str
    status: Status
    created_at: int

    @classmethod
    def of(cls, merge: ModelMerge) -> "ModelMergeObject":
        return cls(model=merge.model, status=merge.status, created_at=merge.created_at)


class ModelDeleted(BaseModel):
    """The response to a deletion."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
