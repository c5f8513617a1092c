"""Checkpoint permissions on the wire (openai-api reference, 1.3.8)."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.api.schemas.fields import Text, Wire
from service.domain.model import Permission


class CreatePermissions(Wire):
    """The projects that may call the checkpoint from now on."""

    project_ids: Annotated[list[Text], Field(min_length=1, max_length=100)]


class PermissionObject(BaseModel):
    """OpenAI's `checkpoint.permission`."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str

    @classmethod
    def of(cls, permission: Permission) -> "PermissionObject":
        return cls(id=permission.id, created_at=permission.created_at, project_id=permission.project_id)


class PermissionDeleted(BaseModel):
    """The response to a deletion."""

    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: bool = True
