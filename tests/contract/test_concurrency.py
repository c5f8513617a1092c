"""Many at once on both databases: nothing is claimed twice, lost, doubled or half-written."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from sqlalchemy import func, select

from service.db import bases, events
from service.db.tables import files as file_rows
from service.db.tables import jobs as job_rows
from service.domain.errors import IllegalTransition, InvalidRequest, JobError, LeaseLost, LuthierError, NotFound
from service.domain.event import NewEvent
from service.domain.upload import Upload
from service.installation.context import Context
from service.operations import bases as known_bases
from service.operations import files as file_operations
from service.operations import jobs as users
from service.operations import keys, models, uploads
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.operations.progress import HeldJob
from service.operations.uploads import NewUpload
from tests.given.stored_files import add_file
from tests.given.stored_jobs import (
    BASES,
    a_model,
    a_result,
    add_job,
    claimed,
    messages,
    state,
    steps,
    stored_events,
)
from tests.given.work import claim_training, claim_validation, renew

pytestmark = pytest.mark.slow

CLAIMERS = 8
JOBS = 200


async def outcomes(*calls: Awaitable[Any]) -> list[Any]:
    """What each call answered or raised; an error that no user is told about fails the test."""
    async with asyncio.timeout(60):
        results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, LuthierError | LeaseLost | JobError):
            raise result
    return results


async def count(ctx: Context, table: Any) -> int:
    async with ctx.database.reading() as tx:
        return len((await tx.connection.execute(table.select())).all())


async def sequences(ctx: Context, job_id: str) -> list[int]:
    return [event.sequence for event in await stored_events(ctx, job_id)]


async def test_many_claimers_share_the_jobs_and_claim_none_twice(ctx: Context, caller: Caller) -> None:
    waiting = [(await add_job(ctx, caller, "queued")).id for _ in range(JOBS)]

    async def claim_all(owner: str) -> list[HeldJob]:
        taken: list[HeldJob] = []
        while True:
            claim = await claim_training(ctx, owner, BASES)
            if claim is None and len(taken) < JOBS and await waiting_jobs(ctx):
                continue  # another claimer held the row that was looked at
            if claim is None:
                return taken
            taken.append(claim)

    claims = await asyncio.gather(*(claim_all(f"worker_{number}") for number in range(CLAIMERS)))
    taken = [claim.job.id for owned in claims for claim in owned]
    assert sorted(taken) == sorted(waiting)
    assert {claim.attempt for owned in claims for claim in owned} == {1}
    for owner, owned in enumerate(claims):
        assert set(await renew(ctx, f"worker_{owner}", owned)) == {claim.job.id for claim in owned}


async def waiting_jobs(ctx: Context) -> bool:
    async with ctx.database.reading() as tx:
        waiting = select(func.count()).select_from(job_rows).where(job_rows.c.status == "queued")
        return bool(await tx.connection.scalar(waiting))


async def test_writers_of_one_jobs_events_number_them_without_gap_or_double(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    seen: list[int] = []

    async def follow() -> None:
        while len(seen) < 41:  # "started" and forty warnings
            async with ctx.database.reading() as tx:
                found = await events.since(tx, claim.job.id, seen[-1] if seen else 0, 10)
            seen.extend(event.sequence for event in found)

    async def write(number: int) -> None:
        async with ctx.database.transaction() as tx:
            await events.add(tx, claim.job.id, [NewEvent(f"warning {number}")])

    await outcomes(follow(), *(write(number) for number in range(40)))
    assert seen == list(range(1, 42))
    assert await sequences(ctx, claim.job.id) == seen


async def test_a_replayed_step_is_written_once_however_many_replay_it(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await outcomes(*(claim.record_steps(steps(1, 2, 3), None) for _ in range(6)))
    assert len([text for text in await messages(ctx, claim.job.id) if text.startswith("Step ")]) == 3


async def test_jobs_created_at_once_are_all_there(ctx: Context, caller: Caller) -> None:
    file = await add_file(ctx, caller)
    views = await outcomes(*(users.create(ctx, caller, NewJob("luthier-tiny", file, n)) for n in range(20)))
    assert await count(ctx, job_rows) == len({view.job.id for view in views}) == 20
    for view in views:
        assert await sequences(ctx, view.job.id) == [1]


@pytest.mark.parametrize("round", range(5))
async def test_a_job_is_never_made_on_a_file_that_is_being_deleted(ctx: Context, caller: Caller, round: int) -> None:
    file = await add_file(ctx, caller)
    creates = [users.create(ctx, caller, NewJob("luthier-tiny", file, n)) for n in range(6)]
    results = await outcomes(*creates[:3], file_operations.delete(ctx, caller, file), *creates[3:])
    made = [view.job.id for view in results if isinstance(view, users.JobView)]
    refused = [result for result in results if isinstance(result, InvalidRequest)]
    assert len(made) + len(refused) == 6
    for id in made:
        job = await state(ctx, id)
        assert (job.status, job.error and job.error["code"]) == ("failed", "deleted_training_file")


async def test_a_file_is_deleted_once(ctx: Context, caller: Caller) -> None:
    file = await add_file(ctx, caller)
    results = await outcomes(*(file_operations.delete(ctx, caller, file) for _ in range(5)))
    assert Counter(type(result) for result in results) == {type(None): 1, NotFound: 4}


@pytest.mark.parametrize("round", range(5))
async def test_a_job_is_cancelled_or_finished_and_never_both(ctx: Context, caller: Caller, round: int) -> None:
    claim = await claimed(ctx, caller)
    finish = claim.finish(a_model(claim), {"step": 9}, a_result(claim))
    cancel, finished = await outcomes(users.cancel(ctx, caller, claim.job.id), finish)
    job = await state(ctx, claim.job.id)
    if isinstance(cancel, IllegalTransition):
        assert (job.status, finished, await count(ctx, file_rows)) == ("succeeded", None, 2)
    else:
        assert (job.status, type(finished), await count(ctx, file_rows)) == ("cancelled", LeaseLost, 1)
    texts = await messages(ctx, job.id)
    ends = ["cancelled" in text or "completed" in text for text in texts]
    assert sum(ends) == 1, texts


async def test_a_job_is_cancelled_once_and_paused_once(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    await outcomes(*(users.pause(ctx, caller, claim.job.id) for _ in range(5)))
    results = await outcomes(*(users.cancel(ctx, caller, claim.job.id) for _ in range(5)))
    assert Counter(type(result) for result in results) == {users.JobView: 1, IllegalTransition: 4}
    texts = await messages(ctx, claim.job.id)
    assert len(texts) == len(set(texts)) == 3, texts  # started, pausing, cancelled
    assert await sequences(ctx, claim.job.id) == [1, 2, 3]


async def test_an_upload_is_completed_once(ctx: Context, caller: Caller) -> None:
    upload, parts = await an_upload(ctx, caller)
    results = await outcomes(*(uploads.complete(ctx, caller, upload.id, parts) for _ in range(5)))
    assert Counter(type(result) for result in results) == {tuple: 1, IllegalTransition: 4}
    assert await count(ctx, file_rows) == 1


async def test_an_upload_is_completed_or_cancelled_and_never_both(ctx: Context, caller: Caller) -> None:
    upload, parts = await an_upload(ctx, caller)
    complete, cancel = await outcomes(
        uploads.complete(ctx, caller, upload.id, parts), uploads.cancel(ctx, caller, upload.id)
    )
    assert isinstance(complete, IllegalTransition) != isinstance(cancel, IllegalTransition)
    assert await count(ctx, file_rows) == (1 if isinstance(complete, tuple) else 0)


async def an_upload(ctx: Context, caller: Caller) -> tuple[Upload, Sequence[str]]:
    """A pending upload and its parts, which came at once."""
    upload = await uploads.create(ctx, caller, NewUpload("a.jsonl", "fine-tune", "text/jsonl", 8 * 3))

    async def send() -> str:
        async def chunks() -> Any:
            yield b"abc"

        async with uploads.incoming_part(ctx, caller, upload.id) as part:
            await part.store(chunks())
            return (await part.add()).id

    parts = await asyncio.gather(*(send() for _ in range(8)))
    async with ctx.database.reading() as tx:
        row = await uploads.uploads.find(tx, caller.project_id, upload.id)
    assert row is not None and (row.stored_parts, row.stored_bytes) == (8, 24)
    return upload, parts


async def test_of_many_first_starts_one_makes_the_installation(ctx: Context) -> None:
    made = await outcomes(*(keys.ensure_installation(ctx) for _ in range(5)))
    assert len([key for key in made if key is not None]) == 1


async def test_keys_for_a_new_project_make_it_once(ctx: Context, key: str) -> None:
    made = await outcomes(*(keys.create_key(ctx, "new", "project") for _ in range(5)))
    assert len({(await keys.authenticate(ctx, one)).project_id for one in made}) == 1


async def test_a_permission_is_granted_once(ctx: Context, caller: Caller) -> None:
    claim = await claimed(ctx, caller)
    model = a_model(claim, 3)
    await claim.publish(model, {"step": 3})
    other = await keys.create_project(ctx, "other")
    granted = await outcomes(*(models.grant(ctx, caller, model.name, [other]) for _ in range(5)))
    assert len({permission.id for answer in granted for permission in answer}) == 1


async def test_of_two_bases_under_one_id_one_is_refused(ctx: Context) -> None:
    records = [bases.BaseRecord("b", "folder", "", {"weights": str(number)}) for number in range(4)]
    results = await outcomes(*(known_bases.register(ctx, record) for record in records))
    assert Counter(type(result) for result in results) == {type(None): 1, JobError: 3}


async def test_a_beat_and_a_deletion_over_the_same_jobs_do_not_wait_for_each_other(
    ctx: Context, caller: Caller
) -> None:
    file = await add_file(ctx, caller)
    claims = []
    for seed in range(8):
        await users.create(ctx, caller, NewJob("luthier-tiny", file, seed))
        claim = await claim_validation(ctx, "worker")
        assert claim is not None
        claims.append(claim)
    beats = [renew(ctx, "worker", claims) for _ in range(10)]
    results = await outcomes(*beats[:5], file_operations.delete(ctx, caller, file), *beats[5:], users_page(ctx, caller))
    assert not any(isinstance(result, LuthierError) for result in results)


async def users_page(ctx: Context, caller: Caller) -> Any:
    return await users.page(ctx, caller, after=None, limit=20)


async def test_places_in_the_queue_are_counted_per_base(ctx: Context, caller: Caller) -> None:
    for _ in range(3):
        await add_job(ctx, caller, "queued")
    places = [view.queue_position for view in (await users_page(ctx, caller)).items]
    assert places == [2, 1, 0]
