"""Jobs of the same content share their tokens: made once, kept while they are needed, made again when they are lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.domain.errors import JobError
from service.domain.job import Job
from service.installation.context import Context
from service.operations import chores, files, jobs
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.operations.orphans import OrphanSweep
from service.operations.progress import HeldJob
from service.recipes.base import Base
from service.recipes.tunings.lora import LoraSettings
from service.recipes.tunings.loreft import LoreftSettings
from service.recipes.tunings.prompt import PromptSettings
from service.settings.settings import Settings
from service.storage.base import one_chunk
from tests.given.installation import installed
from tests.given.journey import rows
from tests.given.old_schema import bring_back, bring_up
from tests.given.running_service import write_catalogue
from tests.given.stored_datasets import let_a_day_pass, shared_objects
from tests.given.stored_jobs import end_long_ago, expire, move
from tests.given.tiny_models import make_tiny_base
from tests.given.work import claim_training, claim_validation
from workers.data.render import Renderer
from workers.data.tokenized import TokenizedDataset
from workers.jobs.loading import Tokenizers
from workers.jobs.staging import stage_job
from workers.jobs.validate import JobValidation

pytestmark = pytest.mark.slow

ROWS = 12


@pytest.fixture
async def ctx(settings: Settings, database_url: str, tmp_path: Path) -> AsyncIterator[Context]:
    """Bases that differ in what their names say, and an orphan sweep that takes everything for old."""
    tiny = make_tiny_base(tmp_path / "tiny")
    weights = make_tiny_base(tmp_path / "weights", seed=1, tunings=("lora", "loreft")).model_copy(
        update={"id": "weights"}
    )
    context = tiny.model_copy(update={"id": "context", "context_tokens": tiny.context_tokens - 1})
    template = await with_template(tmp_path, "template", "{# another #}")
    dated = await with_template(tmp_path, "dated", "{{- strftime_now('%Y-%m-%d') -}}")
    changed = {
        "catalogue": write_catalogue(tmp_path / "bases.toml", tiny, weights, context, template, dated),
        "database_url": database_url,
        "orphan_age_seconds": 0,
    }
    async with installed(settings.model_copy(update=changed)) as ctx:
        yield ctx


async def with_template(folder: Path, id: str, before: str) -> Base:
    """A base whose chat template begins with `before`."""
    base = make_tiny_base(folder / id).model_copy(update={"id": id})
    written = folder / id / "tokenizer_config.json"
    config = json.loads(await asyncio.to_thread(written.read_text))
    config["chat_template"] = before + config["chat_template"]
    await asyncio.to_thread(written.write_text, json.dumps(config))
    return base


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every row that was rendered."""
    seen, prepare = [], Renderer.prepare

    def counted(self: Renderer, row: Any) -> Any:
        seen.append(row)
        return prepare(self, row)

    monkeypatch.setattr(Renderer, "prepare", counted)
    return seen


async def upload(ctx: Context, caller: Caller, content: bytes = rows(ROWS)) -> str:
    async with files.incoming(ctx) as incoming:
        await incoming.store(one_chunk(content))
        return (await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))).id


async def create(ctx: Context, caller: Caller, file: str, model: str = "tiny", **fields: Any) -> str:
    return (await jobs.create(ctx, caller, NewJob(model=model, training_file=file, seed=1, **fields))).job.id


async def claimed(ctx: Context, owner: str = "worker") -> HeldJob:
    held = await claim_validation(ctx, owner)
    assert held is not None
    return held


async def check(ctx: Context, held: HeldJob) -> None:
    base = ctx.catalogue.bases[held.job.base]
    await JobValidation(held, base, Tokenizers(), ctx.settings.scratch_dir).run()


async def validated(ctx: Context, caller: Caller, file: str, model: str = "tiny", **fields: Any) -> Job:
    id = await create(ctx, caller, file, model, **fields)
    await check(ctx, await claimed(ctx))
    return (await jobs.retrieve(ctx, caller, id)).job


async def stored(ctx: Context) -> list[str]:
    return [found.key async for found in ctx.storage.list("data/")]


async def stage_next(ctx: Context, folder: Path) -> None:
    held = await claim_training(ctx, "worker")
    assert held is not None
    await stage_job(held, ctx.catalogue.bases[held.job.base], folder)


async def lose_bytes(ctx: Context, prefix: str) -> None:
    async for found in ctx.storage.list(prefix):
        await ctx.storage.delete(found.key)


async def test_the_second_job_of_a_file_neither_fetches_nor_renders_it(
    ctx: Context, caller: Caller, rendered: list[Any]
) -> None:
    first = await validated(ctx, caller, await upload(ctx, caller))
    again = await upload(ctx, caller)
    await lose_bytes(ctx, f"files/{again}/")
    second = await validated(ctx, caller, again)
    assert len(rendered) == ROWS
    assert second.training_data == first.training_data
    assert await stored(ctx) == await shared_objects(ctx) == [first.training_data]
    assert (second.status, second.hyperparameters) == ("queued", first.hyperparameters)
    assert second.total_steps == first.total_steps


@pytest.mark.parametrize(("base", "times"), [("weights", 1), ("context", 2), ("template", 2)])
async def test_a_base_shares_tokens_with_those_that_read_text_as_it_does(
    ctx: Context, caller: Caller, rendered: list[Any], base: str, times: int
) -> None:
    file = await upload(ctx, caller)
    for model in ("tiny", base):
        assert (await validated(ctx, caller, file, model)).status == "queued"
    assert len(rendered) == times * ROWS
    assert len(await stored(ctx)) == times


async def test_a_row_has_the_context_that_the_tuning_leaves_it(
    ctx: Context, caller: Caller, rendered: list[Any]
) -> None:
    file = await upload(ctx, caller)
    first = await validated(ctx, caller, file)
    dataset = TokenizedDataset.load(ctx.settings.data_dir / "objects" / str(first.training_data))
    longest = int(np.diff(dataset.offsets).max())
    taken = ctx.catalogue.bases["tiny"].context_tokens - longest
    fits = await validated(ctx, caller, file, tuning=PromptSettings(num_virtual_tokens=taken))
    assert fits.status == "queued" and fits.training_data != first.training_data
    job = await validated(ctx, caller, file, tuning=PromptSettings(num_virtual_tokens=taken + 1))
    assert job.status == "failed" and job.error is not None and job.error["code"] == "invalid_training_file"
    reason = f"({longest} tokens, at most {longest - 1} beside the {taken + 1} of the tuning); shorten it"
    assert reason in job.error["message"]
    assert len(rendered) == 3 * ROWS


async def test_a_tuning_that_edits_prompts_has_a_row_for_each_trained_turn(ctx: Context, caller: Caller) -> None:
    turns = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}] * 2
    file = await upload(ctx, caller, b"\n".join([json.dumps({"messages": turns}).encode()] * ROWS))
    numbers = []
    for tuning in (LoraSettings(), LoreftSettings()):
        job = await validated(ctx, caller, file, "weights", tuning=tuning)
        found = TokenizedDataset.load(ctx.settings.data_dir / "objects" / str(job.training_data))
        numbers.append((job.status, len(found), int(found.trained.sum())))
    assert numbers == [("queued", ROWS, numbers[0][2]), ("queued", 2 * ROWS, numbers[0][2])]


@pytest.mark.parametrize(("base", "times"), [("tiny", 1), ("dated", 2)])
async def test_jobs_of_two_days_share_tokens_unless_the_template_prints_the_date(
    ctx: Context, caller: Caller, rendered: list[Any], base: str, times: int
) -> None:
    file = await upload(ctx, caller)
    for day in (1, 2):
        id = await create(ctx, caller, file, base)
        await move(ctx, id, "validating_files", created_at=day * 24 * 3600)
        await check(ctx, await claimed(ctx))
    assert (len(rendered), len(await stored(ctx))) == (times * ROWS, times)


async def test_a_file_that_may_validate_need_not_be_one_that_may_train(
    ctx: Context, caller: Caller, rendered: list[Any]
) -> None:
    short = await upload(ctx, caller, rows(2))
    job = await validated(ctx, caller, await upload(ctx, caller), validation_file=short)
    assert job.status == "queued"
    assert sorted(await stored(ctx)) == sorted([str(job.training_data), str(job.validation_data)])
    assert (await validated(ctx, caller, short)).status == "failed"


async def test_an_invalid_file_is_checked_each_time_and_leaves_nothing(
    ctx: Context, caller: Caller, rendered: list[Any]
) -> None:
    file = await upload(ctx, caller, rows(ROWS) + b'\n{"messages": 1}\n')
    for number in (1, 2):
        job = await validated(ctx, caller, file)
        assert job.error is not None
        assert (job.error["code"], len(rendered)) == ("invalid_training_file", number * ROWS)
    assert await stored(ctx) == await shared_objects(ctx) == []


async def test_of_two_that_check_a_file_at_once_one_shares_its_tokens(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, add = asyncio.Barrier(2), HeldJob.add_dataset

    async def add_together(self: HeldJob, *args: Any, **named: Any) -> Any:
        await both.wait()
        return await add(self, *args, **named)

    monkeypatch.setattr(HeldJob, "add_dataset", add_together)
    file = await upload(ctx, caller)
    ids = [await create(ctx, caller, file) for _ in range(2)]
    async with asyncio.timeout(60):
        await asyncio.gather(*[check(ctx, await claimed(ctx, owner)) for owner in ("one", "two")])
    one, two = [(await jobs.retrieve(ctx, caller, id)).job for id in ids]
    assert (one.status, two.status) == ("queued", "queued")
    assert await shared_objects(ctx) == [one.training_data] == [two.training_data]
    assert len(await stored(ctx)) == 2
    await OrphanSweep(ctx).sweep()
    assert await stored(ctx) == [one.training_data]


async def test_a_worker_killed_after_storing_leaves_an_orphan_and_the_next_one_starts_over(
    ctx: Context, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(self: HeldJob, *args: Any, **named: Any) -> Any:
        raise asyncio.CancelledError

    id = await create(ctx, caller, await upload(ctx, caller))
    with monkeypatch.context() as killed:
        killed.setattr(HeldJob, "add_dataset", die)
        with pytest.raises(asyncio.CancelledError):
            await check(ctx, await claimed(ctx, "one"))
    assert (len(await stored(ctx)), await shared_objects(ctx)) == (1, [])
    await expire(ctx, id)
    await check(ctx, await claimed(ctx, "two"))
    assert len(await stored(ctx)) == 2
    await OrphanSweep(ctx).sweep()
    assert await stored(ctx) == [(await jobs.retrieve(ctx, caller, id)).job.training_data]


async def test_tokens_stay_while_a_job_needs_them_and_a_day_longer(ctx: Context, caller: Caller) -> None:
    file = await upload(ctx, caller)
    first, second = [await validated(ctx, caller, file) for _ in range(2)]
    await move(ctx, first.id, "queued", status="failed")
    await end_long_ago(ctx, first.id)
    await let_a_day_pass(ctx)
    await chores.sweep(ctx)
    assert await stored(ctx) == await shared_objects(ctx) == [second.training_data]
    third = await validated(ctx, caller, file)
    for job in (second, third):
        await move(ctx, job.id, "queued", status="failed")
        await end_long_ago(ctx, job.id)
    await chores.sweep(ctx)
    assert await stored(ctx) == await shared_objects(ctx) == [third.training_data]
    await let_a_day_pass(ctx)
    await chores.sweep(ctx)
    assert await stored(ctx) == await shared_objects(ctx) == []


async def test_a_job_that_is_still_checked_keeps_what_it_has_taken(ctx: Context, caller: Caller) -> None:
    file = await upload(ctx, caller)
    done = await validated(ctx, caller, file)
    await move(ctx, done.id, "queued", status="failed")
    assert done.training_data is not None
    await create(ctx, caller, file)
    content = done.training_data.split("/")[1].split("-")[0]
    assert await (await claimed(ctx)).use_dataset("training_data", content) is not None
    await let_a_day_pass(ctx)
    await chores.sweep(ctx)
    assert await stored(ctx) == [done.training_data]


async def test_tokens_that_storage_lost_are_made_again_by_the_next_job(
    ctx: Context, caller: Caller, rendered: list[Any], tmp_path: Path
) -> None:
    file = await upload(ctx, caller)
    first = await validated(ctx, caller, file)
    await lose_bytes(ctx, "data/")
    with pytest.raises(JobError, match="missing"):
        await stage_next(ctx, tmp_path / "first")
    await move(ctx, first.id, "running", status="failed")
    second, third = [await validated(ctx, caller, file) for _ in range(2)]
    assert len(rendered) == 2 * ROWS
    assert second.training_data == third.training_data != first.training_data
    await stage_next(ctx, tmp_path / "second")


async def test_a_check_finds_that_storage_lost_the_tokens(ctx: Context, caller: Caller, tmp_path: Path) -> None:
    file = await upload(ctx, caller)
    first = await validated(ctx, caller, file)
    await lose_bytes(ctx, "data/")
    second = await validated(ctx, caller, file)
    assert second.training_data != first.training_data
    assert await stored(ctx) == await shared_objects(ctx) == [second.training_data]


async def test_damaged_tokens_fail_their_job_and_no_later_one(ctx: Context, caller: Caller, tmp_path: Path) -> None:
    file = await upload(ctx, caller)
    first = await validated(ctx, caller, file)
    assert first.training_data is not None
    await ctx.storage.put(first.training_data, one_chunk(b"other bytes"))
    with pytest.raises(JobError, match="damaged"):
        await stage_next(ctx, tmp_path / "first")
    await move(ctx, first.id, "running", status="failed")
    second = await validated(ctx, caller, file)
    assert second.training_data != first.training_data
    await stage_next(ctx, tmp_path / "second")


async def test_a_queued_job_finds_its_tokens_after_an_upgrade(ctx: Context, caller: Caller, tmp_path: Path) -> None:
    before = await validated(ctx, caller, await upload(ctx, caller))
    await bring_back(ctx, "0003")
    await bring_up(ctx)
    assert await shared_objects(ctx) == []
    await OrphanSweep(ctx).sweep()
    assert (await jobs.retrieve(ctx, caller, before.id)).job.training_data == before.training_data
    await stage_next(ctx, tmp_path / "job")
