"""Checks of jobs on the wire: Luthier's own, in the manner of OpenAI's jobs. The body of a job creates one."""

from typing import Literal

from pydantic import BaseModel

from service.domain.check import Check, CheckResult, RowMask, Status
from service.domain.json import JsonObject
from service.operations.checks import RowPage, result_of


class CheckFailure(BaseModel):
    """Why the check could not be done."""

    code: str
    message: str
    param: str | None


class CheckObject(BaseModel):
    """A check. `succeeded` says that it was done; `result.valid` says whether the job could start."""

    object: Literal["fine_tuning.check"] = "fine_tuning.check"
    id: str
    model: str
    created_at: int
    finished_at: int | None
    status: Status
    training_file: str
    validation_file: str | None
    hyperparameters: JsonObject
    method: JsonObject
    tuning: JsonObject
    error: CheckFailure | None
    result: CheckResult | None

    @classmethod
    def of(cls, check: Check) -> "CheckObject":
        method = {"type": check.objective, check.objective: {"hyperparameters": check.hyperparameters}}
        return cls(
            id=check.id,
            model=check.parent_model or check.alias or check.base,
            created_at=check.created_at,
            finished_at=check.finished_at,
            status=check.status,
            training_file=check.training_file,
            validation_file=check.validation_file,
            hyperparameters=check.hyperparameters,
            method=method,
            tuning=check.tuning,
            error=None if check.error is None else CheckFailure(**check.error),
            result=result_of(check),
        )


class CheckDeleted(BaseModel):
    """The response to a deletion."""

    id: str
    object: Literal["fine_tuning.check"] = "fine_tuning.check"
    deleted: bool = True


class CheckRows(BaseModel):
    """What is trained of some rows, as the base reads them; `total` rows are in the file."""

    object: Literal["fine_tuning.check.rows"] = "fine_tuning.check.rows"
    data: list[RowMask]
    total: int
    has_more: bool

    @classmethod
    def of(cls, page: RowPage) -> "CheckRows":
        return cls(data=list(page.rows), total=page.total, has_more=page.has_more)
