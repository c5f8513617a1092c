"""A job that names its check is not validated again; a check of another job is refused with what differs."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.domain.check import Check
from service.domain.errors import InvalidRequest
from service.domain.job import Job
from service.installation.context import Context
from service.operations import checked as checked_jobs
from service.operations import checks, chores, jobs, keys
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.operations.progress import HeldJob
from service.recipes.base import Base
from service.recipes.objective import hyperparameters_type
from service.recipes.objectives.dpo import DpoSettings
from service.recipes.tuning import TUNINGS
from service.settings.settings import Settings
from tests.given.checks import (
    checked,
    create,
    installation_for_checks,
    upload,
)
from tests.given.journey import rows
from tests.given.stored_datasets import let_a_day_pass, shared_objects
from tests.given.stored_jobs import messages as stored_messages
from tests.given.tiny_models import make_tiny_base
from tests.given.work import claim_training, claim_validation
from workers.jobs.loading import Tokenizers
from workers.jobs.validate import JobValidation

ROWS = 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
async def ctx(settings: Settings, database_url: str, tmp_path: Path, base: Base) -> AsyncIterator[Context]:
    async with installation_for_checks(settings, tmp_path, base, database_url) as ctx:
        yield ctx


@pytest.fixture
async def other(ctx: Context, stranger_key: str) -> Caller:
    """A caller of another project."""
    return await keys.authenticate(ctx, stranger_key)


async def validated(ctx: Context, caller: Caller, file: str, **fields: Any) -> jobs.JobView:
    """A job of that file whose validation is done."""
    created = await jobs.create(ctx, caller, NewJob(model="tiny", training_file=file, seed=1, **fields))
    held = await claim_validation(ctx, "worker")
    assert held is not None
    await JobValidation(held, ctx.catalogue.bases["tiny"], Tokenizers(), ctx.settings.scratch_dir).run()
    return await jobs.retrieve(ctx, caller, created.job.id)


async def job_of(ctx: Context, caller: Caller, check: Check, **changes: Any) -> Job:
    """A job that names the check, and asks for what was checked but for `changes`."""
    fields = {"model": "tiny", "training_file": check.training_file, "validation_file": check.validation_file}
    new = NewJob(**{**fields, "seed": 1, "check": check.id, **changes})
    return (await jobs.create(ctx, caller, new)).job


async def test_a_job_that_names_its_check_waits_for_a_slot_at_once(ctx: Context, caller: Caller) -> None:
    check = await checked(ctx, caller, rows(ROWS), rows(3))
    job = await job_of(ctx, caller, check, suffix="mine", seed=5)
    plain = (await validated(ctx, caller, check.training_file, validation_file=check.validation_file)).job
    assert (job.status, job.total_steps, job.hyperparameters) == ("queued", plain.total_steps, plain.hyperparameters)
    assert (job.training_data, job.validation_data) == (plain.training_data, plain.validation_data)
    assert (await stored_messages(ctx, job.id)) == [
        f"Created fine-tuning job: {job.id}",
        f"Files were validated by check {check.id}, moving job to queued state",
    ]
    assert await claim_validation(ctx, "worker") is None
    held = await claim_training(ctx, "worker")
    assert held is not None and held.job.id == job.id
    await checks.delete(ctx, caller, check.id)
    await let_a_day_pass(ctx)
    await chores.sweep(ctx)
    assert sorted(await shared_objects(ctx)) == sorted([str(job.training_data), str(job.validation_data)])


async def test_numbers_that_auto_became_may_be_asked_for(ctx: Context, caller: Caller) -> None:
    check = await checked(ctx, caller, rows(ROWS))
    asked = NewJob(model="tiny", training_file="", seed=1).hyperparameters.model_copy(update={"n_epochs": 8})
    assert (await job_of(ctx, caller, check, hyperparameters=asked)).status == "queued"


async def test_a_check_of_another_job_is_refused_with_what_differs(
    ctx: Context, caller: Caller, other: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = await checked(ctx, caller, rows(ROWS), rows(3))
    file = await upload(ctx, caller, rows(ROWS))
    asked = NewJob(model="tiny", training_file="", seed=1).hyperparameters
    changes: dict[str, dict[str, Any]] = {
        "training_file": {"training_file": file},
        "validation_file": {"validation_file": None},
        "method.type": {"objective": "dpo", "hyperparameters": hyperparameters_type(DpoSettings)()},
        "tuning": {"tuning": TUNINGS.find("prompt")()},  # type: ignore[misc]
        "hyperparameters.n_epochs": {"hyperparameters": asked.model_copy(update={"n_epochs": 9})},
    }
    for different, change in changes.items():
        with pytest.raises(InvalidRequest, match=f"different are: {different}\\. ") as refused:
            await job_of(ctx, caller, check, **change)
        assert refused.value.param == "check"
    monkeypatch.setattr(checked_jobs, "version", lambda _: "another")
    with pytest.raises(InvalidRequest, match="the installation's release"):
        await job_of(ctx, caller, check)
    with pytest.raises(InvalidRequest, match="Could not find check"):
        theirs = await upload(ctx, other, rows(ROWS))
        await job_of(ctx, other, check, training_file=theirs, validation_file=None)
    assert (await jobs.page(ctx, caller, after=None, limit=10)).items == []


async def test_only_a_check_that_found_no_problem_can_be_taken_over(ctx: Context, caller: Caller) -> None:
    invalid = await checked(ctx, caller, b"{}\n" * ROWS)
    with pytest.raises(InvalidRequest, match="found problems"):
        await job_of(ctx, caller, invalid)
    waiting = await create(ctx, caller, await upload(ctx, caller, rows(ROWS)))
    with pytest.raises(InvalidRequest, match="its status is 'queued'"):
        await job_of(ctx, caller, await checks.retrieve(ctx, caller, waiting))
    await checks.delete(ctx, caller, waiting)
    lost = await checked(ctx, caller, rows(ROWS))
    held = await claim_validation_of(ctx, caller, lost.training_file)
    await held.remove_dataset(str(lost.training_data))
    with pytest.raises(InvalidRequest, match="check the files again"):
        await job_of(ctx, caller, lost)


async def claim_validation_of(ctx: Context, caller: Caller, file: str) -> HeldJob:
    await jobs.create(ctx, caller, NewJob(model="tiny", training_file=file, seed=1))
    held = await claim_validation(ctx, "worker")
    assert held is not None
    return held
