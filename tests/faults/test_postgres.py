"""PostgreSQL stopped, killed, frozen, full and cut: requests are 503 or done, nothing is half-done, all continues."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError

from service.api.app import create_app
from service.db import events, schema
from service.db.connection import Database, PoolLimits
from service.db.tables import job_events
from service.db.tables import jobs as job_rows
from service.domain.errors import LeaseLost, Unavailable
from service.domain.event import NewEvent
from service.installation.context import Context
from service.installation.create import create_context
from service.operations import keys, progress
from service.settings.settings import Settings
from tests.faults.rounds import ROUNDS, round_seed
from tests.given.stored_files import add_file
from tests.given.stored_jobs import add_job, claimed, expire, steps
from tests.given.work import claim_training, renew
from tests.servers.postgres import PASSWORD, Postgres, running_postgres

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server of this suite's own: it is broken on purpose."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database_url(server: Postgres) -> Iterator[str]:
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Waits short enough for a test, and long enough for its own pauses on a busy machine."""
    short = {"database_connect_seconds": 1.0, "database_command_seconds": 3.0, "database_lock_seconds": 0.5}
    return settings.model_copy(update=short)


@pytest.fixture
async def training_file(ctx: Context, key: str) -> str:
    return await add_file(ctx, await keys.authenticate(ctx, key))


async def recovered(call: Callable[[], Awaitable[object]]) -> None:
    """Returns when the call succeeds again; it may only be Unavailable until then."""
    async with asyncio.timeout(20):
        while True:
            try:
                await call()
                return
            except Unavailable:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", ["stop", "kill", "cut"])
@pytest.mark.parametrize("round_number", range(ROUNDS))
async def test_requests_during_a_restart_are_503_or_done_and_nothing_is_half_written(
    ctx: Context, client: httpx.AsyncClient, server: Postgres, training_file: str, way: str, round_number: int
) -> None:
    seed = round_seed()
    print(f"seed {seed}")  # noqa: T201
    dice = random.Random(seed)
    body = {"model": "luthier-tiny", "training_file": training_file}
    answers: list[httpx.Response] = []
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            answers.append(await client.post("/fine_tuning/jobs", json=body))

    async def disturb() -> None:
        for _ in range(3):
            await asyncio.sleep(dice.uniform(0.05, 0.3))
            if way == "cut":
                await asyncio.to_thread(cut, server)
            else:
                await asyncio.to_thread(server.stop if way == "stop" else server.kill)
                await asyncio.sleep(dice.uniform(0, 0.2))
                server.start()
        await asyncio.sleep(0.2)
        over.set()

    async with asyncio.timeout(60):
        await asyncio.gather(disturb(), *(ask() for _ in range(4)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 503} and statuses[200] > 0, statuses
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["error"]["type"] == "server_error"
    assert (await client.get("/fine_tuning/jobs")).status_code == 200
    made = {answer.json()["id"] for answer in answers if answer.status_code == 200}
    async with ctx.database.reading() as tx:
        rows = set((await tx.connection.execute(job_rows.select().with_only_columns(job_rows.c.id))).scalars())
        told = (await tx.connection.execute(job_events.select().with_only_columns(job_events.c.job_id))).scalars().all()
    assert made <= rows  # a COMMIT whose answer was lost may have made more
    assert len(rows - made) <= statuses[503]
    assert Counter(told) == Counter(dict.fromkeys(rows, 1))


def cut(server: Postgres) -> None:
    server.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'luthier'")


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_worker_goes_on_after_a_restart_with_the_claim_that_it_had(
    ctx: Context, key: str, server: Postgres, way: str
) -> None:
    caller = await keys.authenticate(ctx, key)
    claim = await claimed(ctx, caller)
    await claim.record_steps(steps(1), None)
    server.stop() if way == "stop" else server.kill()
    away: list[Callable[[], Awaitable[object]]] = [
        lambda: claim.record_steps(steps(2), None),
        lambda: renew(ctx, claim.claim.owner, [claim]),
        lambda: claim.warn(NewEvent("careful")),
        lambda: claim_training(ctx, "other", ["luthier-tiny"]),
        lambda: progress.pauses_asked(ctx, [claim.job.id]),
        lambda: claim.release(),
    ]
    for call in away:
        with pytest.raises(Unavailable):
            await call()
    server.start()
    await claim.record_steps(steps(2), None)
    assert await renew(ctx, claim.claim.owner, [claim]) == {claim.job.id: claim.attempt}
    async with ctx.database.reading() as tx:
        found = [event.message for event in await events.since(tx, claim.job.id, 0, 10)]
    assert len(found) == 3 and found[2].startswith("Step 2/")
    await expire(ctx, claim.job.id)
    assert await claim_training(ctx, "other", ["luthier-tiny"]) is not None
    with pytest.raises(LeaseLost):
        await claim.warn(NewEvent("late"))


async def test_a_frozen_server_is_a_503_and_not_a_hang(
    ctx: Context, client: httpx.AsyncClient, server: Postgres
) -> None:
    assert (await client.get("/fine_tuning/jobs")).status_code == 200
    server.freeze()
    try:
        async with asyncio.timeout(15):
            answers = await asyncio.gather(*(client.get("/fine_tuning/jobs") for _ in range(3)))
    finally:
        server.thaw()
    assert {answer.status_code for answer in answers} == {503}
    await recovered(lambda: renew(ctx, "worker", []))
    assert (await client.get("/fine_tuning/jobs")).status_code == 200


async def test_a_connection_that_is_cut_inside_a_transaction_loses_the_whole_transaction(
    ctx: Context, key: str, server: Postgres
) -> None:
    caller = await keys.authenticate(ctx, key)
    job = await add_job(ctx, caller)
    with pytest.raises(Unavailable):
        async with ctx.database.transaction() as tx:
            await events.add(tx, job.id, [NewEvent("lost")])
            await asyncio.to_thread(cut, server)
            await events.add(tx, job.id, [NewEvent("never")])
    async with ctx.database.reading() as tx:
        assert await events.since(tx, job.id, 0, 10) == []


async def test_a_row_that_another_holds_too_long_is_a_503(ctx: Context, key: str) -> None:
    job = await add_job(ctx, await keys.authenticate(ctx, key))
    async with ctx.database.transaction() as tx:
        await events.add(tx, job.id, [NewEvent("mine")])
        with pytest.raises(Unavailable):
            async with ctx.database.transaction() as other:
                await events.add(other, job.id, [NewEvent("waits")])


async def test_two_that_wait_for_each_other_end_in_one_503(ctx: Context, key: str) -> None:
    caller = await keys.authenticate(ctx, key)
    one, two = [(await add_job(ctx, caller)).id for _ in range(2)]

    async def lock(first: str, second: str) -> None:
        async with ctx.database.transaction() as tx:
            await events.add(tx, first, [NewEvent("first")])
            await asyncio.sleep(0.2)
            await events.add(tx, second, [NewEvent("second")])

    results = await asyncio.gather(lock(one, two), lock(two, one), return_exceptions=True)
    assert any(isinstance(result, Unavailable) for result in results)
    assert all(result is None or isinstance(result, Unavailable) for result in results)


async def test_a_command_that_takes_too_long_is_a_503(ctx: Context) -> None:
    with pytest.raises(Unavailable):
        async with ctx.database.reading() as tx:
            await tx.connection.execute(text("select pg_sleep(30)"))


@pytest.mark.parametrize("state", ["53100", "53200", "57P01", "57P03", "40001", "55P03", "58030", "25006", "08006"])
async def test_a_full_disk_and_its_like_are_a_503(ctx: Context, state: str) -> None:
    with pytest.raises(Unavailable):
        async with ctx.database.transaction() as tx:
            await tx.connection.execute(raising(state))


async def test_a_mistake_of_ours_is_not_taken_for_an_absence(ctx: Context) -> None:
    with pytest.raises(DBAPIError):
        async with ctx.database.transaction() as tx:
            await tx.connection.execute(raising("22012"))


def raising(state: str) -> TextClause:
    return text(f"do $$ begin raise exception using errcode = '{state}'; end $$")


async def test_a_server_without_a_free_connection_is_a_503(server: Postgres, database_url: str) -> None:
    greedy = Database(database_url, PoolLimits(connections=80))
    modest = Database(database_url, PoolLimits(connections=1, connect_seconds=1))
    held = []
    try:
        with pytest.raises(Unavailable):
            for _ in range(80):
                held.append(await greedy._connect())
        with pytest.raises(Unavailable):
            await schema.check(modest)
        for connection in held:
            await connection.close()
        await greedy.close()
        await schema.check(modest)
        async with modest.reading():
            with pytest.raises(Unavailable):
                await schema.check(modest)  # its own pool has no more
    finally:
        await greedy.close()
        await modest.close()


@pytest.mark.parametrize("wrong", ["password", "name"])
async def test_what_the_server_refuses_is_a_503_without_the_password(
    database_url: str, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    url = database_url.replace(PASSWORD, PASSWORD + "-not") if wrong == "password" else f"{database_url}-not"
    database = Database(url)
    with pytest.raises(Unavailable) as caught:
        await schema.check(database)
    await database.close()
    printed = capsys.readouterr()
    shown = f"{caught.value} {caught.value.__cause__!r} {database.engine.url} {printed.out} {printed.err}"
    assert PASSWORD not in shown
    assert ("28P01" if wrong == "password" else "3D000") in printed.out + printed.err


async def test_the_service_starts_before_its_database_and_finds_it_later(
    server: Postgres, settings: Settings, database_url: str
) -> None:
    ctx = create_context(settings.model_copy(update={"database_url": database_url}))
    server.stop()
    transport = httpx.ASGITransport(create_app(ctx))
    async with httpx.AsyncClient(transport=transport, base_url="http://luthier") as client:
        assert (await client.get("/health")).json()["database"] == "unavailable"
        server.start()
        async with asyncio.timeout(30):  # a finding is returned again for a second
            while (await client.get("/health")).json()["database"] != "ok":
                await asyncio.sleep(0.1)
    await ctx.close()
