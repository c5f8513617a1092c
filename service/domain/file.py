"""A file that a user uploaded, or that a job made: metadata of a list of stored segments."""

from dataclasses import dataclass

from service.domain.errors import InvalidRequest

TRAINING_PURPOSE = "fine-tune"
UPLOAD_PURPOSES = (TRAINING_PURPOSE, "assistants", "batch", "user_data", "vision", "evals")
RESULT_PURPOSE = "fine-tune-results"
BATCH_LIFE_SECONDS = 30 * 24 * 3600  # files for batches expire, as at OpenAI; others stay


def check_purpose(purpose: str) -> None:
    """Raises InvalidRequest, in OpenAI's words, unless a user may upload for `purpose`."""
    if purpose not in UPLOAD_PURPOSES:
        raise InvalidRequest(f"'{purpose}' is not one of {list(UPLOAD_PURPOSES)} - 'purpose'", param="purpose")


def life_seconds(purpose: str, asked: int | None) -> int | None:
    """How long a file lives for which its user `asked` this; None: it stays."""
    return BATCH_LIFE_SECONDS if asked is None and purpose == "batch" else asked


@dataclass(frozen=True)
class Segment:
    """One write-once object in storage that holds a stretch of a file."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class File:
    """A file's row; the bytes are its segments, in order.

    `status_details` says what is wrong with the lines of a training file, where they were checked as they came.
    """

    id: str
    project_id: str
    purpose: str
    filename: str
    content_type: str
    bytes: int
    created_at: int
    expires_at: int | None = None
    deleted_at: int | None = None
    status_details: str | None = None
