"""What made a model, a job or an import, as far as a job that continues the model needs to know."""

from dataclasses import dataclass

from service.db import jobs, model_imports
from service.db.connection import Transaction
from service.domain.errors import InvalidRequest, JobError
from service.domain.json import JsonObject
from service.domain.model import Model
from service.recipes.served_form import ServedForm, form_of
from service.recipes.tuning import TuningSettings, tuning_of


@dataclass(frozen=True)
class Maker:
    """`alias` of the base is what the model is named after; None for the base's id."""

    alias: str | None
    tuning: TuningSettings
    served_form: ServedForm | None  # None: it is served as it was trained


async def maker_of(tx: Transaction, model: Model) -> Maker:
    """Raises InvalidRequest for a model of a tuning that this installation no longer has."""
    if model.job_id is not None:
        job = await jobs.find(tx, None, model.job_id)
        assert job is not None, "a model has the job that made it"
        return Maker(job.alias, _tuning_of(job.tuning), form_of(job.tuning))
    assert model.import_id is not None, "a model without a job was imported"
    imported = await model_imports.find(tx, None, model.import_id)
    assert imported is not None and imported.tuning is not None, "a model has the import that made it"
    return Maker(imported.alias, _tuning_of(imported.tuning), None)


def _tuning_of(stored: JsonObject) -> TuningSettings:
    try:
        return tuning_of(stored)
    except JobError as error:  # an extension that this installation no longer has
        raise InvalidRequest(error.message, param="model", code=error.code) from error
