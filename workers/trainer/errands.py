"""Errands: one task with a base in a process of its own, beside the trainer's. What each is given, and what it finds.

`parent.errand` starts the process in a folder with the order; the task is in `process` and leaves its result there.
"""

from pydantic import BaseModel, ConfigDict

from service.domain.json import JsonObject
from service.recipes.base import Base
from workers.trainer.protocol import ScoredRow

ORDER, RESULT = "order.json", "result.json"


class Refusal(BaseModel):
    """What is wrong with the user's side of it, as a JobError says it."""

    code: str
    message: str
    param: str | None


class ExamineOrder(BaseModel):
    """An adapter of strangers, in `sent/`."""

    model_config = ConfigDict(frozen=True)

    base: Base
    threads: int  # 0: by the base's size


class Examined(BaseModel):
    """An adapter that fits: in `artifact/` it lies as this installation writes it, the tensors as they were sent."""

    rows: list[ScoredRow]
    tuning: JsonObject
    revision: str
    hashes: dict[str, str]
    environment: dict[str, str]


class ExamineResult(BaseModel):
    """One of the three."""

    found: Examined | None = None
    refusal: Refusal | None = None
    base_unusable: str | None = None


class MergeOrder(BaseModel):
    """An artifact of this installation, in `adapter/`."""

    model_config = ConfigDict(frozen=True)

    base: Base
    weights: str  # hash of the base's weights that it belongs to
    threads: int  # 0: by the base's size


class MergeResult(BaseModel):
    """The merged model is in `merged/`, unless one of these says otherwise."""

    refusal: Refusal | None = None
    base_unusable: str | None = None
