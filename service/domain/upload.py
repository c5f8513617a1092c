"""A file that comes in parts: sent in any order and in parallel, put in order by the list that completes it.

Its parts' bytes are the segments of the file that it becomes; nothing is copied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from service.domain.errors import IllegalTransition, InvalidRequest
from service.domain.file import Segment

PART_LIMIT_BYTES = 64 * 1024 * 1024  # OpenAI says 64 MB; its SDKs send 64 MiB
UPLOAD_LIMIT_BYTES = 8 * 1024 * 1024 * 1024
PARTS_LIMIT = 10_000
LIFE_SECONDS = 3600

Status = Literal["pending", "completed", "cancelled", "expired"]


@dataclass(frozen=True)
class Upload:
    """An upload's row; `bytes` is what its user announced, `stored_bytes` what was received."""

    id: str
    project_id: str
    filename: str
    purpose: str
    content_type: str
    bytes: int
    created_at: int
    expires_at: int
    life_seconds: int | None  # of the file that it becomes; None for one that stays
    status: Status = "pending"
    stored_bytes: int = 0
    stored_parts: int = 0
    file_id: str | None = None

    def at(self, now: int) -> "Upload":
        """The upload at `now`: it expires by the clock, not when the sweep records it."""
        return replace(self, status="expired") if self.status == "pending" and self.expires_at <= now else self


@dataclass(frozen=True)
class UploadPart:
    """One stored part."""

    id: str
    upload_id: str
    created_at: int
    segment: Segment


def not_pending(upload: Upload) -> IllegalTransition:
    """The error for what only a pending upload allows."""
    return IllegalTransition(
        f"Upload {upload.id} cannot be changed any more: its status is '{upload.status}', not 'pending'.",
        param="upload_id",
    )


def check_pending(upload: Upload) -> None:
    """Raises IllegalTransition unless the upload still takes parts, and may be completed or cancelled."""
    if upload.status != "pending":
        raise not_pending(upload)


def check_room(upload: Upload, part_bytes: int) -> None:
    """Raises InvalidRequest unless the upload has room for one more part of `part_bytes`."""
    if upload.stored_bytes + part_bytes > UPLOAD_LIMIT_BYTES:
        raise InvalidRequest(
            f"The parts of an upload may have at most {UPLOAD_LIMIT_BYTES:,} bytes together; "
            f"upload {upload.id} already has {upload.stored_bytes:,}.",
            param="data",
            code="upload_too_large",
        )
    if upload.stored_parts >= PARTS_LIMIT:
        raise InvalidRequest(
            f"An upload may have at most {PARTS_LIMIT:,} parts; send larger ones.", param="data", code="too_many_parts"
        )


def put_in_order(upload: Upload, parts: Mapping[str, Segment], part_ids: Sequence[str]) -> list[Segment]:
    """The segments of the file that `part_ids` make of the upload's `parts`; parts that are not named stay out.

    Raises InvalidRequest for an id that is not a part's or occurs twice, and for bytes other than those announced.
    """
    seen: set[str] = set()
    for id in part_ids:
        if id not in parts:
            raise InvalidRequest(f"No part '{id}' in upload {upload.id}.", param="part_ids", code="invalid_value")
        if id in seen:
            raise InvalidRequest(f"Part '{id}' is in 'part_ids' twice.", param="part_ids", code="invalid_value")
        seen.add(id)
    found = [parts[id] for id in part_ids]
    size = sum(segment.bytes for segment in found)
    if size != upload.bytes:
        raise InvalidRequest(
            f"The parts have {size:,} bytes together, but upload {upload.id} was created for {upload.bytes:,} bytes.",
            param="part_ids",
            code="invalid_value",
        )
    return found
