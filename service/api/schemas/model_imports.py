"""Imports of models on the wire: Luthier's own."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.api.schemas.fields import Text
from service.domain.json import JsonObject
from service.domain.model_import import ModelImport, Status

SUFFIX = r"^[A-Za-z0-9_-]{1,64}$"

# POST /v1/models is parsed as it streams in, so FastAPI cannot see its body; the document describes it by this.
IMPORT_BODY: JsonObject = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "title": "CreateModelRequest",
                "required": ["base"],
                "additionalProperties": False,
                "properties": {
                    "base": {"type": "string", "description": "The base that the adapter was trained on."},
                    "suffix": {"type": "string", "pattern": SUFFIX, "description": "A part of the model's name."},
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "A zip archive of PEFT's adapter_config.json and adapter_model.safetensors.",
                    },
                    "file_id": {
                        "type": "string",
                        "description": "The id of such an archive that was uploaded before, instead of `file`.",
                    },
                    "adapter_config": {
                        "type": "string",
                        "format": "binary",
                        "description": "PEFT's adapter_config.json, with `adapter_model` instead of an archive.",
                    },
                    "adapter_model": {
                        "type": "string",
                        "format": "binary",
                        "description": "PEFT's adapter_model.safetensors.",
                    },
                },
            }
        }
    },
}


class ImportFields(BaseModel):
    """The fields of an import beside its files."""

    model_config = ConfigDict(extra="forbid")

    base: Annotated[Text, StringConstraints(min_length=1)]
    suffix: Annotated[str, StringConstraints(pattern=SUFFIX)] | None = None
    file_id: Annotated[Text, StringConstraints(min_length=1)] | None = None


class ModelImportFailure(BaseModel):
    """Why the adapter did not become a model."""

    code: str
    message: str
    param: str | None


class ModelImportAgreement(BaseModel):
    """How an engine compares with a worker that has scored a fixed text with the adapter and without it."""

    message: str
    level: Literal["info", "warn", "error"]
    figures: dict[str, float]


class ModelImportObject(BaseModel):
    """An adapter on its way to become a model; `model` is its name once it may be called."""

    object: Literal["model.import"] = "model.import"
    id: str
    base: str
    suffix: str | None
    created_at: int
    finished_at: int | None
    status: Status = Field(description="`succeeded`: `model` may be called; `failed`: `error` says why not.")
    model: str | None
    error: ModelImportFailure | None
    agreement: ModelImportAgreement | None

    @classmethod
    def of(cls, imported: ModelImport) -> "ModelImportObject":
        return cls(
            id=imported.id,
            base=imported.alias or imported.base,
            suffix=imported.suffix,
            created_at=imported.created_at,
            finished_at=imported.finished_at,
            status=imported.status,
            model=imported.model,
            error=None if imported.error is None else ModelImportFailure(**imported.error),
            agreement=None if imported.agreement is None else ModelImportAgreement(**imported.agreement),
        )
