"""A worker with several bases takes the oldest waiting job of any of them, and lets no younger one go before it."""

from service.installation.context import Context
from service.operations.keys import Caller
from tests.given.stored_jobs import add_job
from tests.given.work import claim_training, claim_validation

BOTH = ["a", "b"]


async def test_an_older_job_of_another_base_is_not_overtaken(ctx: Context, caller: Caller) -> None:
    first = await add_job(ctx, caller, "queued", "a")
    older = await add_job(ctx, caller, "queued", "b")
    await add_job(ctx, caller, "queued", "a")
    claim = await claim_training(ctx, "one", BOTH)
    assert claim is not None and claim.job.id == first.id
    assert await claim_training(ctx, "one", BOTH, "a") is None  # `a` is seated: its slots run empty
    claim = await claim_training(ctx, "one", BOTH)
    assert claim is not None and claim.job.id == older.id


async def test_younger_jobs_of_another_base_wait_for_the_slots_that_are_filled(ctx: Context, caller: Caller) -> None:
    seated = [await add_job(ctx, caller, "queued", "a") for _ in range(3)]
    await add_job(ctx, caller, "queued", "b")
    claims = [await claim_training(ctx, "one", BOTH, "a") for _ in range(4)]
    assert [claim and claim.job.id for claim in claims] == [*(job.id for job in seated), None]


async def test_a_job_that_lost_its_worker_is_as_old_as_it_was(ctx: Context, caller: Caller) -> None:
    lost = await add_job(ctx, caller, "running", "b")
    await add_job(ctx, caller, "queued", "a")
    assert await claim_training(ctx, "one", BOTH, "a") is None
    claim = await claim_training(ctx, "one", BOTH, "b")
    assert claim is not None and claim.job.id == lost.id


async def test_a_base_that_this_worker_does_not_hold_keeps_nobody_waiting(ctx: Context, caller: Caller) -> None:
    await add_job(ctx, caller, "queued", "elsewhere")
    mine = await add_job(ctx, caller, "queued", "a")
    claim = await claim_training(ctx, "one", BOTH, "a")
    assert claim is not None and claim.job.id == mine.id


async def test_files_are_checked_only_for_bases_that_the_worker_holds(ctx: Context, caller: Caller) -> None:
    job = await add_job(ctx, caller, "validating_files", "a")
    assert await claim_validation(ctx, "one", ["b"]) is None
    claim = await claim_validation(ctx, "one", BOTH)
    assert claim is not None and claim.job.id == job.id
