"""API keys on the wire: Luthier's own. OpenAI's `admin_api_keys` have neither projects nor roles."""

from dataclasses import asdict
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from service.api.schemas.fields import Text, Wire
from service.domain.api_key import ListedKey
from service.operations.keys import NewKey, Role

Name = Annotated[Text, StringConstraints(min_length=1, max_length=64)]


class CreateApiKey(Wire):
    name: Name = Field(description="What it is for; shown beside what it does.")
    project: Name = Field("default", description="The name of its project, which is created if it is new.")
    role: Role = Field("project", description="`admin` sees every project, and may create and revoke keys.")


class ApiKeyObject(BaseModel):
    """A key without its secret. A revoked one stays in the list, and is worth nothing."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    created_at: int
    revoked_at: int | None
    role: str
    project_id: str
    project: str

    @classmethod
    def of(cls, listed: ListedKey) -> "ApiKeyObject":
        return cls(**asdict(listed))


class ApiKeyWithValue(ApiKeyObject):
    """A new key; `value` is the secret, which is not shown again."""

    value: str

    @classmethod
    def with_value(cls, new: NewKey) -> "ApiKeyWithValue":
        return cls(**ApiKeyObject.of(new.listed).model_dump(), value=new.value)


class ApiKeyDeleted(BaseModel):
    """The response to a deletion: the key is revoked."""

    id: str
    object: Literal["api_key"] = "api_key"
    deleted: bool = True
