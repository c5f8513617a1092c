"""The rows of a job between its training and its announcement: who may claim it, and what is fenced."""

from dataclasses import replace

import pytest

from service.domain.errors import LeaseLost
from service.domain.job import Publication
from service.installation.context import Context
from service.operations import jobs as users
from service.operations.keys import Caller
from service.operations.progress import HeldJob
from tests.given.stored_jobs import BASES, a_model, a_result, claimed, messages, state
from tests.given.work import claim_announcement, claim_training, renew


def a_publication(claim: HeldJob) -> Publication:
    return Publication(a_model(claim).name, 9, {"train_loss": 0.5}, sample="jobs/x/samples/y.json", sample_sha256="0")


async def trained(ctx: Context, caller: Caller) -> tuple[HeldJob, Publication]:
    """A job that has just been handed on."""
    claim = await claimed(ctx, caller)
    publication = a_publication(claim)
    await claim.trained(publication)
    return claim, publication


async def test_a_trained_job_stays_running_and_is_claimed_for_its_announcement_only(
    ctx: Context, caller: Caller
) -> None:
    before, publication = await trained(ctx, caller)
    job = await state(ctx, before.job.id)
    assert (job.status, job.fine_tuned_model) == ("running", None)
    assert await renew(ctx, "one", [before]) == {}  # nobody's until it is claimed again
    assert await claim_training(ctx, "two", BASES) is None
    assert await claim_announcement(ctx, "two", ["another-base"]) is None
    claim = await claim_announcement(ctx, "two", BASES)
    assert claim is not None
    assert (claim.job.id, claim.attempt) == (before.job.id, before.attempt + 1)
    assert claim.job.publication is not None
    assert Publication(**claim.job.publication) == publication
    assert await claim_announcement(ctx, "three", BASES) is None


async def test_a_job_that_has_not_trained_is_not_announced(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await claim.release()
    assert await claim_announcement(ctx, "two", BASES) is None


async def test_a_worker_that_comes_back_late_neither_hands_the_job_on_nor_finishes_it(
    ctx: Context, caller: Caller
) -> None:
    late, publication = await trained(ctx, caller)
    assert await claim_announcement(ctx, "two", BASES) is not None
    for write in (
        late.trained(a_publication(late)),
        late.finish(a_model(late), {}, a_result(late)),
    ):
        with pytest.raises(LeaseLost):
            await write
    job = await state(ctx, late.job.id)
    assert job.status == "running"
    assert job.publication is not None
    assert Publication(**job.publication) == publication


async def test_a_job_cancelled_before_its_announcement_has_no_public_model(ctx: Context, caller: Caller) -> None:
    await trained(ctx, caller)
    claim = await claim_announcement(ctx, "two", BASES)
    assert claim is not None
    await users.cancel(ctx, caller, claim.job.id)
    with pytest.raises(LeaseLost):
        await claim.finish(a_model(claim), {}, a_result(claim))
    assert await claim_announcement(ctx, "three", BASES) is None


async def test_a_pause_that_comes_after_the_training_changes_nothing(ctx: Context, caller: Caller) -> None:
    before, _ = await trained(ctx, caller)
    assert (await users.pause(ctx, caller, before.job.id)).job.status == "running"
    claim = await claim_announcement(ctx, "two", BASES)
    assert claim is not None
    await claim.finish(a_model(claim), {}, a_result(claim))
    assert (await state(ctx, claim.job.id)).status == "succeeded"
    assert (await messages(ctx, claim.job.id))[-1] == "The job has successfully completed"


@pytest.mark.parametrize("later", [0, 3])
async def test_a_result_of_an_earlier_step_shares_that_steps_line_and_is_listed_where_it_was_pruned(
    ctx: Context, caller: Caller, later: int
) -> None:
    """`later` checkpoints came after it; three are kept."""
    claim = await claimed(ctx, caller)
    final = a_model(claim)
    published = [a_model(claim, final.step + more) for more in range(later + 1)]
    for model in published:
        await claim.publish(model, {"step": model.step})
    await claim.finish(final, {"step": final.step}, a_result(claim))
    listed = (await users.checkpoint_page(ctx, caller, claim.job.id, after=None, limit=10)).items
    names = {one.checkpoint.model_name for one in listed if one.checkpoint.step == final.step}
    assert names == ({final.name} if later else {published[0].name})
    assert (await state(ctx, claim.job.id)).fine_tuned_model == final.name


async def test_an_early_end_is_the_end_of_the_jobs_steps(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await claim.trained(replace(a_publication(claim), num_steps=12))
    assert (await state(ctx, claim.job.id)).total_steps == 12
