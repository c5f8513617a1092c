"""Files on the wire (openai-api reference, 1.1)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.api.schemas.fields import Text
from service.domain.file import UPLOAD_PURPOSES, File
from service.domain.json import JsonObject

LIFE_SECONDS_MINIMUM, LIFE_SECONDS_MAXIMUM = 3600, 30 * 24 * 3600

# POST /v1/files is parsed as it streams in, so FastAPI cannot see its body; the document describes it by this.
UPLOAD_BODY: JsonObject = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "title": "CreateFileRequest",
                "required": ["file", "purpose"],
                "additionalProperties": False,
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "The file itself, not its name."},
                    "purpose": {"type": "string", "enum": list(UPLOAD_PURPOSES)},
                    "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                    "expires_after[seconds]": {
                        "type": "integer", "minimum": LIFE_SECONDS_MINIMUM, "maximum": LIFE_SECONDS_MAXIMUM,
                    },
                },
            }
        }
    },
}  # fmt: skip


class ExpiresAfter(BaseModel):
    """When the file expires."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=LIFE_SECONDS_MINIMUM, le=LIFE_SECONDS_MAXIMUM)]


class UploadFields(BaseModel):
    """The fields of an upload beside the file. The operation checks the purpose."""

    model_config = ConfigDict(extra="forbid")

    purpose: Annotated[Text, StringConstraints(min_length=1)]
    expires_after: ExpiresAfter | None = None


class FileObject(BaseModel):
    """OpenAI's file object; a file is ready as soon as it exists, whatever its `status`.

    `error`: lines of a training file are not JSON objects; `status_details` says which, and what to do.
    """

    object: Literal["file"] = "file"
    id: str
    purpose: str
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None

    @classmethod
    def of(cls, file: File) -> "FileObject":
        return cls(
            id=file.id,
            purpose=file.purpose,
            filename=file.filename,
            bytes=file.bytes,
            created_at=file.created_at,
            expires_at=file.expires_at,
            status="processed" if file.status_details is None else "error",
            status_details=file.status_details,
        )


class FileDeleted(BaseModel):
    """The response to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
