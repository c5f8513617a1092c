"""The worker's side of a job against a real database: claims, fences, replays, and what must stay scoped."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from service.domain.errors import JobError, LeaseLost
from service.domain.job import Snapshot
from service.installation.context import Context
from service.operations import jobs as users
from service.operations import lookups, progress
from service.operations.keys import Caller
from service.operations.progress import HeldJob
from service.work import claims
from tests.given.statements import statements
from tests.given.stored_jobs import (
    BASES,
    a_model,
    a_result,
    claimed,
    expire,
    messages,
    move,
    state,
    steps,
    stored_events,
)
from tests.given.stored_models import checkpoint_names, find_model
from tests.given.work import claim_training, column, renew


async def test_nothing_of_a_fenced_worker_is_written(ctx: Context, caller: Caller) -> None:
    old = await claimed(ctx, caller)
    await expire(ctx, old.job.id)
    new = await claim_training(ctx, "two", BASES)
    assert new is not None
    before = await messages(ctx, old.job.id)
    late: list[Callable[[], Awaitable[object]]] = [
        lambda: old.record_steps(steps(1), None),
        lambda: old.record_snapshot(Snapshot(old.job.id, 1, "p/", {})),
        lambda: old.publish(a_model(old, 1), {}),
        lambda: old.finish(a_model(old), {}, a_result(old)),
        lambda: old.fail(JobError("x", "y")),
        lambda: old.charge_crash(),
    ]
    for write in late:
        with pytest.raises(LeaseLost):
            await write()
    job = await state(ctx, old.job.id)
    assert (job.status, job.step, job.error) == ("running", 0, None)
    assert await column(ctx, job.id, "crashes") == 1  # the lease that ran out
    assert await messages(ctx, old.job.id) == before
    assert await lookups.find_snapshots(ctx, old.job.id) == []
    await new.finish(a_model(new), {}, a_result(new))
    assert (await state(ctx, old.job.id)).status == "succeeded"


async def test_a_cancelled_job_cannot_be_finished_by_its_worker(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await users.cancel(ctx, caller, claim.job.id)
    assert await renew(ctx, "one", [claim]) == {}
    model = a_model(claim)
    with pytest.raises(LeaseLost):
        await claim.finish(model, {}, a_result(claim))
    assert await find_model(ctx, model.name) is None


async def test_replayed_steps_do_not_double(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await claim.record_steps(steps(1, 2, 3), 0.5)
    await claim.record_steps(steps(2, 3, 4), 0.5)
    assert [row["step"] for row in await lookups.metrics_of(ctx, claim.job.id)] == [1, 2, 3, 4]
    job = await state(ctx, claim.job.id)
    assert (job.step, job.trained_tokens, job.seconds_per_step) == (4, 40, 0.5)


async def test_events_are_numbered_without_gaps_by_many_writers(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await asyncio.gather(*(claim.record_steps(steps(n), None) for n in range(1, 21)))
    written = await stored_events(ctx, claim.job.id)
    assert [event.sequence for event in written] == list(range(1, len(written) + 1))
    assert len(written) == 21  # "started" and twenty steps


async def test_guard_a_step_is_one_event_and_many_steps_take_as_many_statements_as_one(
    ctx: Context, caller: Caller
) -> None:
    """Counted, since a trainer's steps are written beside its training."""
    claim = await claimed(ctx, caller)
    before = len(await stored_events(ctx, claim.job.id))
    with statements(ctx) as of_one:
        await claim.record_steps(steps(1), None)
    with statements(ctx) as of_many:
        await claim.record_steps(steps(*range(2, 42)), None)
    assert len(await stored_events(ctx, claim.job.id)) - before == 41
    assert len(of_many) == len(of_one) <= 10


async def test_only_the_last_two_snapshots_are_kept(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    superseded: list[int] = []
    for step in (10, 20, 30, 40):
        snapshot = Snapshot(claim.job.id, step, f"p{step}/", {"a": "b"})
        superseded += [old.step for old in await claim.record_snapshot(snapshot)]
    assert superseded == [10, 20]
    assert [snapshot.step for snapshot in await lookups.find_snapshots(ctx, claim.job.id)] == [40, 30]


async def test_only_the_last_checkpoints_stay_callable(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    names = []
    for step in (1, 2, 3, 4):
        model = a_model(claim, step)
        names.append(model.name)
        await claim.publish(model, {"step": step})
    final = a_model(claim)
    await claim.finish(final, {"step": 99}, a_result(claim))
    kept = await checkpoint_names(ctx, claim.job.id)
    dead = [name for name in names if (await find_model(ctx, name)).deleted_at is not None]  # type: ignore[union-attr]
    assert kept == [final.name, names[3], names[2]]
    assert dead == names[:2]


async def test_all_checkpoints_beyond_a_lowered_limit_go_at_the_end(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    generous = HeldJob(replace(ctx, settings=ctx.settings.model_copy(update={"checkpoints_kept": 150})), claim.claim)
    for step in range(101, 221):  # the final one is 99
        await generous.publish(a_model(claim, step), {"step": step})
    assert len(await checkpoint_names(ctx, claim.job.id)) == 120
    final = a_model(claim)
    await claim.finish(final, {}, a_result(claim))
    names = await checkpoint_names(ctx, claim.job.id)
    assert (names[0], len(names)) == (final.name, ctx.settings.checkpoints_kept)


async def test_a_finished_job_has_its_model_its_file_and_its_events_at_once(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    model, result = a_model(claim), a_result(claim)
    await claim.finish(model, {"train_loss": 0.1}, result)
    job = await state(ctx, claim.job.id)
    assert (job.status, job.fine_tuned_model, job.result_file) == ("succeeded", model.name, result[0].id)
    assert job.finished_at is not None
    assert (await messages(ctx, job.id))[-2:] == [
        f"New fine-tuned model created: {model.name}",
        "The job has successfully completed",
    ]


async def test_a_released_job_is_claimable_at_once(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await claims.release_all(ctx, "one")
    again = await claim_training(ctx, "two", BASES)
    assert again is not None
    assert again.job.id == claim.job.id


async def test_a_pause_is_told_to_the_worker_that_holds_the_job_and_frees_it(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    assert await progress.pauses_asked(ctx, [claim.job.id]) == set()
    for _ in range(2):
        assert (await users.pause(ctx, caller, claim.job.id)).job.status == "running"
    assert await progress.pauses_asked(ctx, [claim.job.id]) == {claim.job.id}
    assert await progress.pauses_asked(ctx, []) == set()
    assert await claim.pause(3)
    job = await state(ctx, claim.job.id)
    assert (job.status, job.pause_requested_at) == ("paused", None)
    assert await renew(ctx, "one", [claim]) == {}
    assert await claim_training(ctx, "two", BASES) is None
    said = await messages(ctx, job.id)
    assert said[-2:] == ["The job will be paused after its next step", "The job was paused at step 3"]


async def test_a_resumed_job_is_queued_and_keeps_its_first_start(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await move(ctx, claim.job.id, "running", started_at=5)
    await users.pause(ctx, caller, claim.job.id)
    await claim.pause(3)
    view = await users.resume(ctx, caller, claim.job.id)
    assert (view.job.status, view.queue_position) == ("queued", 0)
    again = await claim_training(ctx, "two", BASES)
    assert again is not None
    assert (again.job.id, again.attempt, again.job.started_at) == (claim.job.id, claim.attempt + 1, 5)
    assert await progress.pauses_asked(ctx, [claim.job.id]) == set()


async def test_a_pause_that_was_taken_back_leaves_the_job_running_for_any_worker(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await users.pause(ctx, caller, claim.job.id)
    assert (await users.resume(ctx, caller, claim.job.id)).job.status == "running"
    assert await progress.pauses_asked(ctx, [claim.job.id]) == set()
    assert not await claim.pause(3)  # its trainer had left already
    again = await claim_training(ctx, "two", BASES)
    assert again is not None
    assert (again.job.id, again.job.status) == (claim.job.id, "running")


async def test_a_worker_without_its_lease_cannot_pause(ctx: Context, caller: Caller) -> None:
    old = await claimed(ctx, caller)
    await users.pause(ctx, caller, old.job.id)
    await expire(ctx, old.job.id)
    new = await claim_training(ctx, "two", BASES)
    assert new is not None
    with pytest.raises(LeaseLost):
        await old.pause(3)
    assert (await state(ctx, old.job.id)).status == "running"
    assert await progress.pauses_asked(ctx, [old.job.id]) == {old.job.id}  # the request outlives the worker


async def test_a_job_that_ends_before_its_pause_is_seen_succeeds(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await users.pause(ctx, caller, claim.job.id)
    await claim.finish(a_model(claim), {}, a_result(claim))
    assert (await state(ctx, claim.job.id)).status == "succeeded"
    with pytest.raises(LeaseLost):
        await claim.pause(99)


async def test_crashes_are_counted(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    assert [await claim.charge_crash() for _ in range(3)] == [1, 2, 3]
