"""Uploads on the wire (openai-api reference, 1.2)."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from service.api.schemas.fields import Text, Wire
from service.api.schemas.files import LIFE_SECONDS_MAXIMUM, LIFE_SECONDS_MINIMUM, FileObject
from service.domain.file import UPLOAD_PURPOSES, File
from service.domain.json import JsonObject
from service.domain.upload import PARTS_LIMIT, UPLOAD_LIMIT_BYTES, Status, Upload, UploadPart
from service.recipes.fields import Whole

# POST /v1/uploads/{upload_id}/parts is parsed as it streams in, so FastAPI cannot see its body.
PART_BODY: JsonObject = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "title": "AddUploadPartRequest",
                "required": ["data"],
                "additionalProperties": False,
                "properties": {"data": {"type": "string", "format": "binary", "description": "The part's bytes."}},
            }
        }
    },
}

Name = Annotated[Text, StringConstraints(min_length=1)]


class FileExpirationAfter(Wire):
    """When the file expires."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=LIFE_SECONDS_MINIMUM, le=LIFE_SECONDS_MAXIMUM), Whole]


class CreateUpload(Wire):
    """The body of POST /v1/uploads. The operation rejects a wrong purpose; any `mime_type` is accepted."""

    filename: Name
    purpose: Annotated[Name, Field(json_schema_extra={"enum": list(UPLOAD_PURPOSES)})]
    bytes: Annotated[int, Field(ge=0, le=UPLOAD_LIMIT_BYTES), Whole]
    mime_type: Text
    expires_after: FileExpirationAfter | None = None


class CompleteUpload(Wire):
    """The body of POST /v1/uploads/{upload_id}/complete."""

    part_ids: Annotated[
        list[Text], Field(min_length=1, max_length=PARTS_LIMIT, description="In the file's order.", fail_fast=True)
    ]
    md5: Annotated[Text | None, Field(description="Of the whole file, in hex; a wrong one is rejected.")] = None


class UploadObject(BaseModel):
    """OpenAI's upload object; `file` is present once the upload is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Status
    expires_at: int
    file: Annotated[FileObject | None, Field(exclude_if=lambda file: file is None)] = None

    @classmethod
    def of(cls, upload: Upload, file: File | None = None) -> "UploadObject":
        return cls(
            id=upload.id,
            bytes=upload.bytes,
            created_at=upload.created_at,
            filename=upload.filename,
            purpose=upload.purpose,
            status=upload.status,
            expires_at=upload.expires_at,
            file=None if file is None else FileObject.of(file),
        )


class UploadPartObject(BaseModel):
    """OpenAI's part object."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str

    @classmethod
    def of(cls, part: UploadPart) -> "UploadPartObject":
        return cls(id=part.id, created_at=part.created_at, upload_id=part.upload_id)
