"""Model aliases on the wire. OpenAI has none: the shapes follow its other objects."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from service.api.schemas.api_keys import ApiKeyReference
from service.api.schemas.fields import Text, Wire
from service.domain.model_alias import Action, AliasChange, Candidate, ModelAlias

ModelId = Annotated[Text, StringConstraints(min_length=1)]


class AliasCandidate(Wire):
    """A second model, which serves a share of the requests."""

    model: ModelId = Field(description="A base or a tuned model that the project may call.")
    weight: Annotated[float, Field(gt=0, lt=1)] = Field(description="Its share of the requests, between 0 and 1.")

    def chosen(self) -> Candidate:
        return Candidate(self.model, self.weight)


class CreateModelAlias(Wire):
    name: Text = Field(description="Letters, digits, `.`, `_` and `-`, at most 64; neither a base nor an alias of one.")
    model: ModelId = Field(description="A base or a tuned model that the project may call.")
    candidate: AliasCandidate | None = None


class UpdateModelAlias(Wire):
    """A field that is left out stays as it is; a `candidate` of null ends the canary."""

    model: ModelId | None = None
    candidate: AliasCandidate | None = None


class PromoteModelAlias(Wire):
    model: ModelId | None = Field(None, description="The model to promote; without it, the candidate.")


class RollBackModelAlias(Wire):
    current_model: ModelId | None = Field(
        None, description="What the alias must stand for now, else nothing is done: makes it safe to send twice."
    )


class AliasCandidateObject(BaseModel):
    model: str
    weight: float


class ModelAliasObject(BaseModel):
    """A name of the project's, and what it stands for. `previous_model` is where a rollback leads."""

    id: str
    object: Literal["model_alias"] = "model_alias"
    created_at: int
    updated_at: int
    model: str
    candidate: AliasCandidateObject | None
    previous_model: str | None

    @classmethod
    def of(cls, alias: ModelAlias) -> "ModelAliasObject":
        return cls(
            id=alias.name,
            created_at=alias.created_at,
            updated_at=alias.updated_at,
            model=alias.model,
            candidate=_candidate(alias.candidate),
            previous_model=alias.previous_model,
        )


class ModelAliasChangeObject(BaseModel):
    """What an alias stood for after a change."""

    id: str
    object: Literal["model_alias.change"] = "model_alias.change"
    created_at: int
    action: Action
    model: str
    candidate: AliasCandidateObject | None
    api_key: ApiKeyReference

    @classmethod
    def of(cls, change: AliasChange) -> "ModelAliasChangeObject":
        return cls(
            id=change.id,
            created_at=change.created_at,
            action=change.action,
            model=change.model,
            candidate=_candidate(change.candidate),
            api_key=ApiKeyReference(id=change.key_id, name=change.key_name),
        )


class ModelAliasDeleted(BaseModel):
    """The response to a deletion."""

    id: str
    object: Literal["model_alias"] = "model_alias"
    deleted: bool = True


def _candidate(candidate: Candidate | None) -> AliasCandidateObject | None:
    return None if candidate is None else AliasCandidateObject(model=candidate.model, weight=candidate.weight)
