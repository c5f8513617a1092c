"""What an attempt costs that ended without giving its work back, what costs nothing, and work that has to wait."""

from service.domain.job import Snapshot
from service.domain.memory import DeviceMemory
from service.domain.work import WorkerState
from service.installation.context import Context
from service.operations.counts import count_jobs
from service.operations.job_work import VALIDATE
from service.operations.keys import Caller
from service.work import claims
from service.work.held import delay_seconds
from tests.given.stored_jobs import BASES, add_job, claimed, expire, messages, state
from tests.given.work import claim_training, claim_validation, column, renew, set_work, work_of


async def test_a_file_that_ends_its_worker_again_and_again_fails_the_job_and_is_named(
    ctx: Context, caller: Caller
) -> None:
    job = await add_job(ctx, caller)
    for _ in range(ctx.settings.crash_limit):
        assert await claim_validation(ctx, "one", BASES) is not None
        await expire(ctx, job.id)
    assert await claim_validation(ctx, "one", BASES) is None
    failed = await state(ctx, job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error["code"], failed.error["param"]) == ("worker_crashed", "training_file")
    assert job.training_file in failed.error["message"]
    assert "3 times" in failed.error["message"]
    assert "create the job again" in failed.error["message"]
    assert (await messages(ctx, job.id))[-1] == failed.error["message"]
    assert await work_of(ctx, job.id) is None


async def test_work_that_is_given_back_costs_nothing(ctx: Context, caller: Caller) -> None:
    job = await add_job(ctx, caller)
    for _ in range(2 * ctx.settings.crash_limit):
        held = await claim_validation(ctx, "one", BASES)
        assert held is not None
        await held.release()
    for _ in range(2 * ctx.settings.crash_limit):
        assert await claim_validation(ctx, "one", BASES) is not None
        await claims.release_all(ctx, "one")
    for _ in range(2 * ctx.settings.crash_limit):
        held = await claim_validation(ctx, "one", BASES)
        assert held is not None
        await held.postpone()
        await set_work(ctx, job.id, not_before=None)
    assert await column(ctx, job.id, "crashes") == 0


async def test_a_training_that_gets_further_is_not_stopped(ctx: Context, caller: Caller) -> None:
    held = await claimed(ctx, caller)
    for step in range(1, 3 * ctx.settings.crash_limit):
        await held.record_snapshot(Snapshot(held.job.id, step, f"{step}/", {}))
        await expire(ctx, held.job.id)
        again = await claim_training(ctx, "one", BASES)
        assert again is not None
        held = again
    await held.record_snapshot(Snapshot(held.job.id, step, "replayed/", {}))  # no further than before
    assert await column(ctx, held.job.id, "crashes") == 1


async def test_a_worker_that_was_cut_off_takes_the_crash_back(ctx: Context, caller: Caller) -> None:
    frozen = await claimed(ctx, caller)
    await expire(ctx, frozen.job.id)
    assert await claim_training(ctx, "two", BASES) is not None
    assert await column(ctx, frozen.job.id, "crashes") == 1
    assert await renew(ctx, "one", [frozen]) == {}
    assert await column(ctx, frozen.job.id, "crashes") == 0


async def test_what_crashed_twice_is_claimed_one_at_a_time(ctx: Context, caller: Caller) -> None:
    """So that a file that ends its worker does not take other work with it to the limit."""
    one, other = await add_job(ctx, caller), await add_job(ctx, caller)
    for _ in range(2):
        for _ in range(2):
            assert await claim_validation(ctx, "one", BASES) is not None
        for job in (one, other):
            await expire(ctx, job.id)
    fresh = await add_job(ctx, caller)
    first = await claim_validation(ctx, "one", BASES)
    assert first is not None and first.job.id == one.id and first.suspect
    beside = await claims.claim(ctx, VALIDATE, "one", BASES, suspects=False)
    assert beside is not None and beside.subject.id == fresh.id
    assert await claims.claim(ctx, VALIDATE, "one", BASES, suspects=False) is None
    elsewhere = await claim_validation(ctx, "two", BASES)
    assert elsewhere is not None and elsewhere.job.id == other.id


def test_postponed_work_waits_longer_each_time_but_not_for_ever() -> None:
    assert [delay_seconds(count) for count in (1, 2, 3, 4)] == [0.5, 1, 2, 4]
    assert delay_seconds(1000) == 60


async def test_work_that_cannot_be_done_now_is_nobodys_for_a_while(ctx: Context, caller: Caller) -> None:
    job = await add_job(ctx, caller)
    for count in range(1, 4):
        held = await claim_validation(ctx, "one", BASES)
        assert held is not None
        await held.postpone()
        assert await column(ctx, job.id, "postponements") == count
        await set_work(ctx, job.id, not_before=1e12)
        assert await claim_validation(ctx, "one", BASES) is None
        await set_work(ctx, job.id, not_before=0.0)
    held = await claim_validation(ctx, "one", BASES)
    assert held is not None
    await held.validated(hyperparameters={}, total_steps=1)
    assert await column(ctx, job.id, "postponements") == 0


async def test_a_job_that_broke_the_service_says_that_it_is_not_at_fault(ctx: Context, caller: Caller) -> None:
    held = await claimed(ctx, caller)
    await held.abandon()
    job = await state(ctx, held.job.id)
    assert job.error is not None and job.error["code"] == "server_error"
    assert await work_of(ctx, job.id) is None


async def test_a_worker_says_how_it_is_at_every_beat_and_is_forgotten_when_it_stops(
    ctx: Context, caller: Caller
) -> None:
    room = {"a": DeviceMemory("cuda", total_bytes=2**36, free_bytes=2**35)}
    for worker in (WorkerState("one", "here", {"a": "loading"}), WorkerState("one", "here", {"a": ""}, room)):
        await claims.renew(ctx, worker, [])
        assert (await count_jobs(ctx)).workers == [worker]
    await claims.release_all(ctx, "one")
    assert (await count_jobs(ctx)).workers == []
