"""Leases: who may claim a job, who keeps it, and whom it passes to."""

import asyncio

from service.installation.context import Context
from service.operations import jobs
from service.operations.keys import Caller
from tests.given.stored_jobs import BASES, add_job, claimed, expire
from tests.given.work import claim_training, claim_validation, renew


async def test_the_oldest_waiting_job_is_claimed_first_and_once(ctx: Context, caller: Caller) -> None:
    waiting = [await add_job(ctx, caller) for _ in range(3)]
    claims = await asyncio.gather(*(claim_validation(ctx, f"w{n}") for n in range(5)))
    taken = [claim.job.id for claim in claims if claim is not None]
    assert sorted(taken) == sorted(job.id for job in waiting)
    assert len((await jobs.page(ctx, caller, after=None, limit=10)).items) == 3


async def test_a_held_job_is_not_claimable_until_its_lease_ends(ctx: Context, caller: Caller) -> None:
    first = await claimed(ctx, caller)
    assert await claim_training(ctx, "two", BASES) is None
    await expire(ctx, first.job.id)
    second = await claim_training(ctx, "two", BASES)
    assert second is not None
    assert (second.job.id, second.job.status, second.attempt) == (first.job.id, "running", first.attempt + 1)


async def test_a_worker_without_the_base_claims_nothing(ctx: Context, caller: Caller) -> None:
    await add_job(ctx, caller, "queued")
    assert await claim_training(ctx, "one", ["another-base"]) is None


async def test_renewing_keeps_a_lease_and_tells_what_is_held(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await expire(ctx, claim.job.id)
    assert await renew(ctx, "one", [claim]) == {claim.job.id: claim.attempt}
    assert await claim_training(ctx, "two", BASES) is None
    assert await renew(ctx, "two", [claim]) == {}


async def test_a_job_that_its_worker_has_dropped_is_not_kept(ctx: Context, caller: Caller) -> None:
    """It could not give the job back, because the database was down for a moment."""
    claim = await claimed(ctx, caller)
    await expire(ctx, claim.job.id)
    assert await renew(ctx, "one", []) == {}
    taken = await claim_training(ctx, "two", BASES)
    assert taken is not None
    assert taken.job.id == claim.job.id
