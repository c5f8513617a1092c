"""A tuned model's weights merged into its base's, made once and kept for a while to be downloaded.

    queued --> running --> succeeded | failed

A model has at most one merge. Times are unix seconds.
"""

from dataclasses import dataclass
from typing import Literal

from service.domain.json import JsonObject

Status = Literal["queued", "running", "succeeded", "failed"]
FINAL: frozenset[Status] = frozenset({"succeeded", "failed"})


@dataclass(frozen=True)
class ModelMerge:
    """One row of the model_merges table. Who works on it is a row of `service.domain.work`."""

    id: str
    project_id: str
    model: str
    base: str
    status: Status
    created_at: int
    finished_at: int | None = None
    error: JsonObject | None = None  # code, message, param
    bytes: int | None = None  # of the archive
    sha256: str | None = None
