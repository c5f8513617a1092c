"""Projects share workers: who holds least is next, and who holds most makes room. Rules first, then claims."""

import pytest

from service.domain.work import Work
from service.installation.context import Context
from service.operations import keys
from service.operations.job_work import TRAIN
from service.operations.keys import Caller
from service.work import claims
from service.work.claims import makes_room, may_change_base, who_leaves
from tests.given.stored_jobs import BASES, add_job
from tests.given.work import claim_training, claim_validation


def some_work(project: str, number: int, base: str = "a") -> Work:
    return Work(f"{project}{number}", number, "train", f"job{number}", project, base)


@pytest.mark.parametrize(
    ("giver", "receiver", "asked"),
    [(1, 0, True), (4, 0, True), (2, 1, False), (3, 1, True), (1, 1, False), (0, 2, False)],
)
def test_a_place_is_given_to_who_has_none_or_two_less(giver: int, receiver: int, asked: bool) -> None:
    assert makes_room("A", "B", {"A": giver, "B": receiver}) is asked


def test_a_project_makes_no_room_for_itself() -> None:
    assert not makes_room("A", "A", {"A": 4})


def test_whoever_holds_most_gives_what_it_has_held_longest() -> None:
    ripe = [some_work("B", 1), some_work("A", 5), some_work("A", 2)]
    holdings = {"A": 3, "B": 1}
    assert who_leaves(some_work("C", 9), ripe, holdings) == [ripe[1]]
    assert who_leaves(some_work("B", 9), ripe, holdings) == [ripe[1]]
    assert who_leaves(some_work("A", 9), ripe, holdings) == []
    assert who_leaves(some_work("C", 9), [], holdings) == []


def test_a_base_is_changed_only_for_who_has_nothing_and_after_everybodys_turn() -> None:
    seated = [some_work("A", 1), some_work("A", 2)]
    assert may_change_base(some_work("B", 3, "b"), seated, seated, {"A": 2})
    assert not may_change_base(some_work("B", 3, "b"), seated, seated[:1], {"A": 2})
    assert not may_change_base(some_work("B", 3, "b"), seated, seated, {"A": 2, "B": 1})
    assert not may_change_base(some_work("A", 3, "b"), seated, seated, {"A": 2})


@pytest.fixture
async def other(ctx: Context, stranger_key: str) -> Caller:
    """A caller of another project."""
    return await keys.authenticate(ctx, stranger_key)


async def test_the_project_that_holds_least_is_next_however_many_older_jobs_wait(
    ctx: Context, caller: Caller, other: Caller
) -> None:
    for _ in range(4):
        await add_job(ctx, caller, "queued")
    late = await add_job(ctx, other, "queued")
    first, second, third = [await claim_training(ctx, "one", BASES) for _ in range(3)]
    assert first is not None and second is not None and third is not None
    assert first.job.project_id == caller.project_id  # nobody holds anything: the older one
    assert second.job.id == late.id
    assert third.job.project_id == caller.project_id


async def test_validation_is_shared_too(ctx: Context, caller: Caller, other: Caller) -> None:
    for _ in range(4):
        await add_job(ctx, caller)
    late = await add_job(ctx, other)
    assert await claim_validation(ctx, "one", BASES) is not None
    second = await claim_validation(ctx, "two", BASES)
    assert second is not None and second.job.id == late.id


async def test_with_one_place_projects_take_turns(ctx: Context, caller: Caller, other: Caller) -> None:
    """Nobody holds anything whenever the place is free: then it is who was served longest ago."""
    for _ in range(3):
        await add_job(ctx, caller, "queued")
    for _ in range(3):
        await add_job(ctx, other, "queued")
    served = []
    for _ in range(4):
        held = await claim_training(ctx, "one", BASES)
        assert held is not None
        served.append(held.job.project_id)
        await held.done()
    assert served == [caller.project_id, other.project_id] * 2


async def test_what_is_held_of_another_kind_does_not_count(ctx: Context, caller: Caller, other: Caller) -> None:
    await add_job(ctx, caller)
    assert await claim_validation(ctx, "one", BASES) is not None
    mine = await add_job(ctx, caller, "queued")
    await add_job(ctx, other, "queued")
    held = await claim_training(ctx, "one", BASES)
    assert held is not None and held.job.id == mine.id


async def room(ctx: Context, ripe: list[str], *, resident: str = "luthier-tiny", full: bool = True) -> list[str]:
    bases = [*BASES, "other"]
    return await claims.make_room(ctx, TRAIN, "one", bases, ripe=ripe, long_ripe=ripe, resident=resident, full=full)


async def seated(ctx: Context, caller: Caller, count: int) -> list[str]:
    """Ids of work of as many jobs of the caller, held by `one`."""
    found = []
    for _ in range(count):
        await add_job(ctx, caller, "queued")
        held = await claim_training(ctx, "one", BASES)
        assert held is not None
        found.append(held.id)
    return found


async def test_one_job_makes_room_for_one_that_waits(ctx: Context, caller: Caller, other: Caller) -> None:
    ids = await seated(ctx, caller, 3)
    assert await room(ctx, ids) == []  # nobody waits
    await add_job(ctx, caller, "queued")
    assert await room(ctx, ids) == []  # nor anybody of another project
    await add_job(ctx, other, "queued")
    assert await room(ctx, ids, full=False) == []  # there is a place
    assert await room(ctx, []) == []  # nobody has had its turn
    assert await room(ctx, ids[1:]) == [ids[1]]
    assert await room(ctx, ids) == []  # a place is on its way already
    await add_job(ctx, other, "queued")
    assert await room(ctx, ids) == []  # two and one: nobody would gain


async def test_whoever_left_is_not_put_back_in_the_place_that_it_gave(
    ctx: Context, caller: Caller, other: Caller
) -> None:
    await add_job(ctx, caller, "queued")
    first = await claim_training(ctx, "one", BASES)
    assert first is not None
    late = await add_job(ctx, other, "queued")
    assert await room(ctx, [first.id]) == [first.id]
    await first.release()
    second = await claim_training(ctx, "one", BASES)
    assert second is not None and second.job.id == late.id
    await second.done()
    again = await claim_training(ctx, "one", BASES)
    assert again is not None
    assert (again.job.id, again.job.status, again.attempt) == (first.job.id, "running", first.attempt + 1)
    assert not again.suspect


async def test_all_that_are_seated_leave_for_another_base_together(ctx: Context, caller: Caller, other: Caller) -> None:
    ids = await seated(ctx, caller, 2)
    await add_job(ctx, caller, "queued", "other")
    assert await room(ctx, ids, full=False) == []  # its own jobs of another base wait, as they always did
    elsewhere = await add_job(ctx, other, "queued", "other")
    assert await room(ctx, ids[:1], full=False) == []
    assert sorted(await room(ctx, ids, full=False)) == sorted(ids)
    await claims.release_all(ctx, "one")
    held = await claim_training(ctx, "one", [*BASES, "other"])
    assert held is not None and held.job.id == elsewhere.id
