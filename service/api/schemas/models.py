"""Models on the wire (openai-api reference, 1.6)."""

from typing import Literal

from pydantic import BaseModel

from service.operations.models import ModelView


class ModelObject(BaseModel):
    """OpenAI's model object."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    shutdown_date: None = None  # a model stays until its owner deletes it

    @classmethod
    def of(cls, model: ModelView) -> "ModelObject":
        return cls(id=model.id, created=model.created_at, owned_by=model.owner)


class ModelList(BaseModel):
    """Every model at once: OpenAI does not paginate this list."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class ModelDeleted(BaseModel):
    """The response to a deletion."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
