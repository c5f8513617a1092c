"""What a job takes over from a check that it names: tokenised rows, a number for every "auto", and no validation.

Only where the check is of the same job on the same installation; what differs is named, and nothing is checked again.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version

from service.db import checks, datasets
from service.db.connection import Transaction
from service.domain.check import RESULT, Check, CheckResult
from service.domain.check import template_date as date_of_check
from service.domain.errors import InvalidRequest
from service.domain.job import Job, template_date
from service.recipes.base import Base
from service.settings.settings import Settings


def conditions(settings: Settings, base: Base) -> str:
    """A hash of what of the installation decides what a check finds: its release, its limits, the base's entry."""
    decisive = {
        "release": version("luthier"),
        "row_limit_bytes": settings.row_limit_bytes,
        "examples_minimum": settings.examples_minimum,
        "base": base.model_dump(mode="json", exclude={"aliases", "serving"}),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


async def take_over(
    tx: Transaction, settings: Settings, base: Base, job: Job, check_id: str
) -> tuple[Job, CheckResult]:
    """The new job as its validation would leave it, and what the check found. Nobody sweeps the rows before the commit.

    Raises InvalidRequest: there is no such check, it has not succeeded, or it is of another job.
    """
    check = await checks.find(tx, job.project_id, check_id, lock=True)
    if check is None:
        raise _refused(f"Could not find check: {check_id}")
    if check.status != "succeeded" or check.result is None:
        raise _refused(f"Check {check.id} cannot be used: its status is '{check.status}'.")
    result = RESULT.validate_python(check.result)
    if result.plan is None:
        raise _refused(f"Check {check.id} cannot be used: it found problems in the files. Correct them first.")
    different = list(_differences(check, result, job))
    if check.conditions != conditions(settings, base):
        different.append("the installation's release, limits or base")
    if different:
        raise _refused(
            f"Check {check.id} is of another job; different are: {', '.join(different)}. Check this job, or leave the "
            "check out."
        )
    for object_key in filter(None, (check.training_data, check.validation_data)):
        if not await datasets.keep(tx, object_key):
            raise _refused(f"The rows of check {check.id} are not stored any more; please check the files again.")
    taken = replace(
        job,
        status="queued",
        hyperparameters=result.plan.hyperparameters,
        total_steps=result.plan.total_steps,
        training_data=check.training_data,
        validation_data=check.validation_data,
    )
    return taken, result


def _differences(check: Check, result: CheckResult, job: Job) -> Iterator[str]:
    """The fields of the request by which the job is another than the one that was checked."""
    assert result.plan is not None
    pairs = {
        "model": ((check.base, check.parent_model), (job.base, job.parent_model)),
        "training_file": (check.training_file, job.training_file),
        "validation_file": (check.validation_file, job.validation_file),
        "method.type": (check.objective, job.objective),
        "tuning": (check.tuning, job.tuning),
        "safeguards": (check.safeguards, job.safeguards),
    }
    yield from (name for name, (checked, asked) in pairs.items() if checked != asked)
    if check.objective == job.objective:
        for name, asked in job.hyperparameters.items():
            if asked not in (check.hyperparameters.get(name), result.plan.hyperparameters.get(name)):
                yield f"hyperparameters.{name}"
    if result.prints_the_date and date_of_check(check) != template_date(job):
        yield "the day, which the base's chat template prints"


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="check")
