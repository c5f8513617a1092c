"""From a created job to the folder that the trainer gets: "auto" resolved, the rate multiplied, the data staged."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.domain.errors import JobError
from service.domain.job import Job
from service.installation.context import Context
from service.operations import files, jobs
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.recipes.objective import auto_batch_size, auto_epochs, find_objective, hyperparameters_type
from service.recipes.objectives.dpo import DpoSettings
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.installation import installed
from tests.given.journey import pairs, rows
from tests.given.running_service import write_catalogue
from tests.given.stored_jobs import stored_events
from tests.given.tiny_models import make_tiny_base
from tests.given.work import claim_training, claim_validation
from workers.data.tokenized import TokenizedDataset
from workers.jobs.loading import Tokenizers
from workers.jobs.staging import stage_job
from workers.jobs.validate import JobValidation
from workers.trainer.protocol import JobSpec


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    catalogue = write_catalogue(tmp_path / "bases.toml", make_tiny_base(tmp_path / "base"))
    async with installed(Settings(data_dir=tmp_path / "data", catalogue=catalogue)) as ctx:
        yield ctx


async def validated(
    ctx: Context,
    caller: Caller,
    content: bytes,
    objective: str = "supervised",
    *,
    before: Callable[[str], Awaitable[None]] | None = None,
    **hyperparameters: Any,
) -> Job:
    """A job whose files were checked; `before` that, something is done to its training file."""
    async with files.incoming(ctx) as incoming:
        await incoming.store(one_chunk(content))
        file = await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))
    settings = hyperparameters_type(find_objective(objective))(**hyperparameters)
    new = NewJob(model="tiny", training_file=file.id, seed=1, objective=objective, hyperparameters=settings)
    created = await jobs.create(ctx, caller, new)
    if before is not None:
        await before(file.id)
    claim = await claim_validation(ctx, "worker")
    assert claim is not None
    base = ctx.catalogue.bases["tiny"]
    await JobValidation(claim, base, Tokenizers(), ctx.settings.scratch_dir).run()
    return (await jobs.retrieve(ctx, caller, created.job.id)).job


async def staged(ctx: Context, folder: Path) -> JobSpec:
    claim = await claim_training(ctx, "worker", ["tiny"])
    assert claim is not None
    await stage_job(claim, ctx.catalogue.bases["tiny"], folder)
    return JobSpec.model_validate_json(await asyncio.to_thread((folder / "job.json").read_bytes))


async def test_the_multiplier_multiplies_the_catalogues_rate(ctx: Context, caller: Caller, tmp_path: Path) -> None:
    await validated(ctx, caller, rows(12), learning_rate_multiplier=2)
    spec = await staged(ctx, tmp_path / "job")
    assert spec.learning_rate == 2 * ctx.catalogue.bases["tiny"].learning_rate["lora"]


@pytest.mark.parametrize(
    ("multiplier", "rate", "what"), [(2e-5, "2e-07", "small"), (1.0, "", ""), (5e3, "50", "large")]
)
async def test_a_rate_that_cannot_be_meant_is_a_warning_with_both_numbers(
    ctx: Context, caller: Caller, multiplier: float, rate: str, what: str
) -> None:
    """As of a published script that sends an absolute rate under the multiplier's name."""
    job = await validated(ctx, caller, rows(12), learning_rate_multiplier=multiplier)
    warnings = [event for event in await stored_events(ctx, job.id) if event.level == "warn"]
    assert len(warnings) == (1 if what else 0)
    for event in warnings:
        assert f"will be {rate}, where 0.01 is usual for this base and tuning. That is very {what}" in event.message
        assert event.data["usual_learning_rate"] == 0.01


async def test_auto_becomes_numbers_that_the_job_shows(ctx: Context, caller: Caller) -> None:
    job = await validated(ctx, caller, rows(20))
    assert job.status == "queued"
    assert job.hyperparameters == {"n_epochs": 5, "batch_size": 1, "learning_rate_multiplier": 1.0}
    assert job.total_steps == 100


@pytest.mark.parametrize(
    ("examples", "epochs", "batch"), [(10, 10, 1), (33, 3, 1), (34, 3, 1), (750, 3, 2), (9000, 2, 18), (30000, 1, 60)]
)
def test_auto_follows_the_documented_rule(examples: int, epochs: int, batch: int) -> None:
    assert (auto_epochs(examples), auto_batch_size(examples)) == (epochs, batch)


async def test_what_was_given_is_not_auto(ctx: Context, caller: Caller, tmp_path: Path) -> None:
    job = await validated(ctx, caller, rows(12), n_epochs=2, batch_size=5, learning_rate_multiplier=0.5)
    spec = await staged(ctx, tmp_path / "job")
    assert (spec.n_epochs, spec.batch_size) == (2, 5)
    assert job.total_steps == 6  # 5 + 5 + 2 examples, twice


async def test_the_staged_rows_are_the_files(ctx: Context, caller: Caller, tmp_path: Path) -> None:
    await validated(ctx, caller, rows(12))
    await staged(ctx, tmp_path / "job")
    dataset = await asyncio.to_thread(TokenizedDataset.load, tmp_path / "job" / "train.safetensors")
    assert len(dataset) == 12
    assert 0 < dataset.num_trained_tokens < dataset.num_tokens


async def test_a_job_whose_rows_are_gone_fails_instead_of_being_tried_for_ever(
    ctx: Context, caller: Caller, tmp_path: Path
) -> None:
    job = await validated(ctx, caller, rows(12))
    assert job.training_data is not None
    await ctx.storage.delete(job.training_data)
    with pytest.raises(JobError) as raised:
        await staged(ctx, tmp_path / "job")
    assert raised.value.code == "data_unavailable"


async def test_a_file_whose_bytes_are_gone_fails_its_job(ctx: Context, caller: Caller) -> None:
    async def lose(file_id: str) -> None:
        async for found in ctx.storage.list(f"files/{file_id}/"):
            await ctx.storage.delete(found.key)

    job = await validated(ctx, caller, rows(12), before=lose)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error["code"], job.error["param"]) == ("data_unavailable", "training_file")


async def test_a_dpo_job_trains_pairs_by_dpo_with_its_beta(ctx: Context, caller: Caller, tmp_path: Path) -> None:
    job = await validated(ctx, caller, pairs(12), "dpo", n_epochs=2, batch_size=5)
    assert (job.total_steps, job.hyperparameters["beta"]) == (6, 0.1)  # 5 + 5 + 2 pairs, twice
    spec = await staged(ctx, tmp_path / "job")
    assert spec.recipe.objective == DpoSettings(beta=0.1)
    dataset = await asyncio.to_thread(TokenizedDataset.load, tmp_path / "job" / "train.safetensors")
    assert (dataset.num_examples, len(dataset)) == (12, 24)


async def test_a_file_that_was_deleted_before_the_check_fails_the_job(ctx: Context, caller: Caller) -> None:
    async with files.incoming(ctx) as incoming:
        await incoming.store(one_chunk(rows(12)))
        file = await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))
    created = await jobs.create(ctx, caller, NewJob(model="tiny", training_file=file.id, seed=1))
    await files.delete(ctx, caller, file.id)
    job = (await jobs.retrieve(ctx, caller, created.job.id)).job
    assert job.status == "failed"
    assert job.error == {
        "code": "deleted_training_file",
        "message": "The job failed because the training file was deleted",
        "param": "training_file",
    }
