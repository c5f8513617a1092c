"""What a new job starts from: a base of the catalogue, or a tuned model of its project, whose weights it continues."""

from dataclasses import dataclass

from service.db import jobs, models
from service.db.connection import Transaction
from service.domain.errors import InvalidRequest, JobError
from service.domain.job import Job
from service.installation.context import Context
from service.operations.keys import Caller
from service.recipes.base import Base
from service.recipes.tuning import TUNINGS, TuningSettings, continued_tuning, tuning_of


@dataclass(frozen=True)
class Origin:
    """`parent` and the tuning that made it are None for a job that starts from the base itself."""

    base: Base
    parent: str | None = None
    parent_tuning: TuningSettings | None = None

    def tuning(self, asked: TuningSettings | None) -> TuningSettings:
        """The job's tuning, resolved: what was asked for, the parent's, or the default. Raises InvalidRequest."""
        if self.parent_tuning is not None:
            return continued_tuning(self.parent_tuning, asked)
        return asked or TUNINGS.default()


async def find(ctx: Context, tx: Transaction, caller: Caller, name: str) -> Origin:
    """What `name` stands for. Raises InvalidRequest, for deleted models and other projects' too."""
    base = ctx.catalogue.find(name)
    if base is not None:
        return Origin(base)
    model = await models.find(tx, caller.project_id, name, lock=True)  # its artifact must outlive the job
    if model is not None and model.deleted_at is None and model.base in ctx.catalogue.bases:
        job = await jobs.find(tx, None, model.job_id)
        assert job is not None, "a model has the job that made it"
        return Origin(ctx.catalogue.bases[model.base], name, _tuning(job))
    raise InvalidRequest(
        f"Model {name} is not available for fine-tuning or does not exist.", code="model_not_available"
    )


def _tuning(job: Job) -> TuningSettings:
    try:
        return tuning_of(job.tuning)
    except JobError as error:  # an extension that this installation no longer has
        raise InvalidRequest(error.message, param="model", code=error.code) from error
