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


class Order(BaseModel):
    """What every errand is told."""

    model_config = ConfigDict(frozen=True)

    base: Base
    threads: int  # 0: by the base's size


class Result(BaseModel):
    """What every errand may say instead of what it found."""

    refusal: Refusal | None = None
    base_unusable: str | None = None


class ExamineOrder(Order):
    """An adapter of strangers, in `sent/`."""


class Examined(BaseModel):
    """An adapter that fits: in `artifact/` it lies as this installation writes it, the tensors as they were sent."""

    rows: list[ScoredRow]
    tuning: JsonObject
    revision: str
    hashes: dict[str, str]
    environment: dict[str, str]


class ExamineResult(Result):
    """One of the three."""

    found: Examined | None = None


class MergeOrder(Order):
    """An artifact of this installation, in `adapter/`."""

    hashes: dict[str, str]  # of the base that it belongs to


class MergeResult(Result):
    """The merged model is in `merged/`, unless one of the two says otherwise."""
