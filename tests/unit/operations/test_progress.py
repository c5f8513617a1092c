"""The worker's side of a job against a real database: claims, fences, replays, and what must stay scoped."""

import asyncio
from collections.abc import Sequence

import pytest

from service.db import events, files, jobs, models
from service.domain import ids
from service.domain.errors import JobError, LeaseLost
from service.domain.file import RESULT_PURPOSE, File, Segment
from service.domain.job import Claim, Job, Snapshot, Status
from service.domain.model import Model
from service.installation.context import Context
from service.operations import jobs as users
from service.operations import lookups, progress
from service.operations.keys import Caller
from service.operations.progress import StepRecord

BASES = ["luthier-tiny"]


def a_file(caller: Caller) -> File:
    return File(ids.file_id(), caller.project_id, "fine-tune", "a.jsonl", "text/jsonl", 3, created_at=1)


async def add_job(ctx: Context, caller: Caller, status: Status = "validating_files", base: str = "luthier-tiny") -> Job:
    file = a_file(caller)
    job = Job(
        id=ids.job_id(),
        project_id=caller.project_id,
        base=base,
        training_file=file.id,
        validation_file=None,
        objective="supervised",
        tuning={"type": "lora", "lora": {"r": 4}},
        hyperparameters={"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0},
        seed=1,
        suffix=None,
        status=status,
        created_at=1,
    )
    async with ctx.database.transaction() as tx:
        await files.add(tx, file, [Segment(f"files/{file.id}/0", 3, "0" * 64)])
        await jobs.add(tx, job)
    return job


async def claimed(ctx: Context, caller: Caller, owner: str = "one") -> Claim:
    await add_job(ctx, caller, "queued")
    claim = await progress.claim_training(ctx, owner, BASES)
    assert claim is not None
    return claim


async def state(ctx: Context, id: str) -> Job:
    async with ctx.database.reading() as tx:
        job = await jobs.find(tx, None, id)
    assert job is not None
    return job


async def messages(ctx: Context, id: str) -> list[str]:
    async with ctx.database.reading() as tx:
        return [event.message for event in reversed(await events.page(tx, id, None, 100))]


def a_model(claim: Claim, step: int | None = None) -> Model:
    suffix = "" if step is None else f":ckpt-step-{step}"
    name = f"ft:luthier-tiny:luthier::{ids.publication_id()}{suffix}"
    kind = "final" if step is None else "checkpoint"
    job = claim.job
    return Model(name, job.project_id, job.id, job.base, kind, step or 99, "lora", created_at=1)  # type: ignore[arg-type]


def a_result(claim: Claim) -> tuple[File, Sequence[Segment]]:
    id = ids.file_id()
    file = File(id, claim.job.project_id, RESULT_PURPOSE, "step_metrics.csv", "text/csv", 1, created_at=1)
    return file, [Segment(f"files/{id}/0", 1, "0" * 64)]


def steps(*numbers: int) -> list[StepRecord]:
    return [StepRecord(n, 10 * n, {"step": n, "total_steps": 9, "train_loss": 1.0}) for n in numbers]


async def expire(ctx: Context, id: str) -> None:
    async with ctx.database.transaction() as tx:
        await jobs.change(tx, id, (await state_in(tx, id)).status, {"lease_expires_at": 0.0})


async def state_in(tx: object, id: str) -> Job:
    job = await jobs.find(tx, None, id)  # type: ignore[arg-type]
    assert job is not None
    return job


async def test_nothing_of_a_fenced_worker_is_written(ctx: Context, caller: Caller) -> None:
    old = await claimed(ctx, caller)
    await expire(ctx, old.job.id)
    new = await progress.claim_training(ctx, "two", BASES)
    assert new is not None
    before = await messages(ctx, old.job.id)
    late = [
        progress.record_steps(ctx, old, steps(1), None),
        progress.record_snapshot(ctx, old, Snapshot(old.job.id, 1, "p/", {})),
        progress.publish_checkpoint(ctx, old, a_model(old, 1), {}),
        progress.finish(ctx, old, a_model(old), {}, a_result(old)),
        progress.fail(ctx, old, JobError("x", "y")),
        progress.charge_crash(ctx, old),
    ]
    for write in late:
        with pytest.raises(LeaseLost):
            await write
    job = await state(ctx, old.job.id)
    assert (job.status, job.step, job.crashes, job.error) == ("running", 0, 0, None)
    assert await messages(ctx, old.job.id) == before
    assert await lookups.find_snapshots(ctx, old.job.id) == []
    await progress.finish(ctx, new, a_model(new), {}, a_result(new))
    assert (await state(ctx, old.job.id)).status == "succeeded"


async def test_a_cancelled_job_cannot_be_finished_by_its_worker(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await users.cancel(ctx, caller, claim.job.id)
    assert await progress.renew(ctx, "one", [claim]) == {}
    model = a_model(claim)
    with pytest.raises(LeaseLost):
        await progress.finish(ctx, claim, model, {}, a_result(claim))
    async with ctx.database.reading() as tx:
        assert await models.find(tx, None, model.name) is None


async def test_replayed_steps_do_not_double(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await progress.record_steps(ctx, claim, steps(1, 2, 3), 0.5)
    await progress.record_steps(ctx, claim, steps(2, 3, 4), 0.5)
    assert [row["step"] for row in await lookups.metrics_of(ctx, claim.job.id)] == [1, 2, 3, 4]
    job = await state(ctx, claim.job.id)
    assert (job.step, job.trained_tokens, job.seconds_per_step) == (4, 40, 0.5)


async def test_events_are_numbered_without_gaps_by_many_writers(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await asyncio.gather(*(progress.record_steps(ctx, claim, steps(n), None) for n in range(1, 21)))
    async with ctx.database.reading() as tx:
        page = await events.page(tx, claim.job.id, None, 100)
    assert [event.sequence for event in page] == list(range(len(page), 0, -1))
    assert len(page) == 21  # "started" and twenty steps


async def test_only_the_last_two_snapshots_are_kept(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    superseded: list[int] = []
    for step in (10, 20, 30, 40):
        snapshot = Snapshot(claim.job.id, step, f"p{step}/", {"a": "b"})
        superseded += [old.step for old in await progress.record_snapshot(ctx, claim, snapshot)]
    assert superseded == [10, 20]
    assert [snapshot.step for snapshot in await lookups.find_snapshots(ctx, claim.job.id)] == [40, 30]


async def test_only_the_last_checkpoints_stay_callable(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    names = []
    for step in (1, 2, 3, 4):
        model = a_model(claim, step)
        names.append(model.name)
        await progress.publish_checkpoint(ctx, claim, model, {"step": step})
    final = a_model(claim)
    await progress.finish(ctx, claim, final, {"step": 99}, a_result(claim))
    async with ctx.database.reading() as tx:
        kept = [checkpoint.model_name for checkpoint in await models.checkpoint_page(tx, claim.job.id, None, 10)]
        dead = [name for name in names if (await models.find(tx, None, name)).deleted_at is not None]  # type: ignore[union-attr]
    assert kept == [final.name, names[3], names[2]]
    assert dead == names[:2]


async def test_a_finished_job_has_its_model_its_file_and_its_events_at_once(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    model, result = a_model(claim), a_result(claim)
    await progress.finish(ctx, claim, model, {"train_loss": 0.1}, result)
    job = await state(ctx, claim.job.id)
    assert (job.status, job.fine_tuned_model, job.result_file) == ("succeeded", model.name, result[0].id)
    assert job.finished_at is not None
    assert (await messages(ctx, job.id))[-2:] == [
        f"New fine-tuned model created: {model.name}",
        "The job has successfully completed",
    ]


async def test_a_released_job_is_claimable_at_once(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await progress.release_all(ctx, "one")
    again = await progress.claim_training(ctx, "two", BASES)
    assert again is not None
    assert again.job.id == claim.job.id


async def test_a_pause_is_told_to_the_worker_that_holds_the_job_and_frees_it(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    assert await progress.pauses_asked(ctx, "one") == {}
    for _ in range(2):
        assert (await users.pause(ctx, caller, claim.job.id)).job.status == "running"
    assert await progress.pauses_asked(ctx, "one") == {claim.job.id: claim.attempt}
    assert await progress.pauses_asked(ctx, "two") == {}
    assert await progress.pause(ctx, claim, 3)
    job = await state(ctx, claim.job.id)
    assert (job.status, job.pause_requested_at) == ("paused", None)
    assert await progress.renew(ctx, "one", [claim]) == {}
    assert await progress.claim_training(ctx, "two", BASES) is None
    said = await messages(ctx, job.id)
    assert said[-2:] == ["The job will be paused after its next step", "The job was paused at step 3"]


async def test_a_resumed_job_is_queued_and_keeps_its_first_start(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    async with ctx.database.transaction() as tx:
        await jobs.change(tx, claim.job.id, "running", {"started_at": 5})
    await users.pause(ctx, caller, claim.job.id)
    await progress.pause(ctx, claim, 3)
    view = await users.resume(ctx, caller, claim.job.id)
    assert (view.job.status, view.queue_position) == ("queued", 0)
    again = await progress.claim_training(ctx, "two", BASES)
    assert again is not None
    assert (again.job.id, again.attempt, again.job.started_at) == (claim.job.id, claim.attempt + 1, 5)
    assert await progress.pauses_asked(ctx, "two") == {}


async def test_a_pause_that_was_taken_back_leaves_the_job_running_for_any_worker(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await users.pause(ctx, caller, claim.job.id)
    assert (await users.resume(ctx, caller, claim.job.id)).job.status == "running"
    assert await progress.pauses_asked(ctx, "one") == {}
    assert not await progress.pause(ctx, claim, 3)  # its trainer had left already
    again = await progress.claim_training(ctx, "two", BASES)
    assert again is not None
    assert (again.job.id, again.job.status) == (claim.job.id, "running")


async def test_a_worker_without_its_lease_cannot_pause(ctx: Context, caller: Caller) -> None:
    old = await claimed(ctx, caller)
    await users.pause(ctx, caller, old.job.id)
    await expire(ctx, old.job.id)
    new = await progress.claim_training(ctx, "two", BASES)
    assert new is not None
    with pytest.raises(LeaseLost):
        await progress.pause(ctx, old, 3)
    assert (await state(ctx, old.job.id)).status == "running"
    assert await progress.pauses_asked(ctx, "two") == {old.job.id: new.attempt}  # the request outlives the worker


async def test_a_job_that_ends_before_its_pause_is_seen_succeeds(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await users.pause(ctx, caller, claim.job.id)
    await progress.finish(ctx, claim, a_model(claim), {}, a_result(claim))
    assert (await state(ctx, claim.job.id)).status == "succeeded"
    with pytest.raises(LeaseLost):
        await progress.pause(ctx, claim, 99)


async def test_crashes_are_counted(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    assert [await progress.charge_crash(ctx, claim) for _ in range(3)] == [1, 2, 3]
