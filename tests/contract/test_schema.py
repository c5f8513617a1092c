"""The schema on both databases: every way up ends at what `tables.py` says, and two that migrate do not collide."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from service.db import jobs, schema
from service.db import work as works
from service.db.connection import Database
from service.db.tables import metadata
from service.domain.job import FINAL

pytestmark = pytest.mark.slow

SCRIPTS = Config()
SCRIPTS.set_main_option("script_location", str(schema.MIGRATIONS))
REVISIONS = [script.revision for script in ScriptDirectory.from_config(SCRIPTS).walk_revisions()][::-1]  # oldest first


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database without any table."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'luthier.db'}"
    else:
        url = request.getfixturevalue("postgres").new_database(migrated=False)
    database = Database(url)
    yield database
    await database.close()
    if request.param == "postgres":
        request.getfixturevalue("postgres").drop_database(url)


async def on(database: Database, work: Callable[[Connection], object]) -> object:
    async with database.transaction() as tx:
        return await tx.connection.run_sync(work)


def differences(connection: Connection) -> object:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return compare_metadata(context, metadata)


def to(revision: str) -> Callable[[Connection], None]:
    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    return upgrade


async def test_an_empty_database_becomes_what_the_tables_say(empty: Database) -> None:
    await schema.migrate(empty)
    assert await on(empty, differences) == []
    await schema.check(empty)


async def test_rows_of_every_earlier_revision_are_kept(empty: Database) -> None:
    """One way up that stops at every revision, where an installation of that time gets a project more."""
    for revision in REVISIONS:
        await on(empty, to(revision))
        async with empty.transaction() as tx:
            query = text("INSERT INTO projects (id, name, created_at) VALUES (:revision, :revision, 1)")
            await tx.connection.execute(query, {"revision": revision})
    await schema.migrate(empty)
    assert await on(empty, differences) == []
    await schema.check(empty)
    async with empty.reading() as tx:
        kept = (await tx.connection.execute(text("SELECT name FROM projects ORDER BY name"))).scalars().all()
    assert kept == REVISIONS


async def test_a_missing_column_is_a_difference(empty: Database) -> None:
    await schema.migrate(empty)
    async with empty.transaction() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE files DROP COLUMN content_type")
    assert "content_type" in str(await on(empty, differences))


async def test_two_that_migrate_at_once_follow_each_other(empty: Database) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*(schema.migrate(empty) for _ in range(3)))
    assert await on(empty, differences) == []


async def test_an_old_schema_is_refused_and_the_message_says_what_to_do(empty: Database) -> None:
    with pytest.raises(schema.SchemaError, match="luthierd migrate"):
        await schema.check(empty)


async def test_a_newer_schema_is_refused_too(empty: Database) -> None:
    await schema.migrate(empty)
    async with empty.transaction() as tx:
        await tx.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(schema.SchemaError, match="9999"):
        await schema.check(empty)


JOBS_BEFORE = {  # id: status, attempt, crashes, owner, lease, pause asked, published -> what is to be done for it
    "new": ("validating_files", 0, 0, None, None, None, False),
    "checked-by-one": ("validating_files", 1, 0, "worker_1", 1e12, None, False),
    "queued": ("queued", 1, 0, None, None, None, False),
    "trained-by-one": ("running", 2, 1, "worker_1", 1e12, None, False),
    "lost": ("running", 5, 0, "worker_2", 5.0, None, False),
    "pausing": ("running", 2, 0, "worker_1", 1e12, 7, False),
    "paused": ("paused", 3, 2, None, None, None, False),
    "trained": ("running", 2, 0, None, None, None, True),
    "announced-by-one": ("running", 4, 0, "worker_1", 1e12, None, True),
    "succeeded": ("succeeded", 4, 0, None, None, None, True),
    "failed": ("failed", 3, 3, None, None, None, False),
    "cancelled": ("cancelled", 1, 0, None, None, None, False),
}


def fill(revision: str) -> Callable[[Connection], None]:
    """One project with a job in every state that the schema of this revision knows."""

    def insert(connection: Connection) -> None:
        connection.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'one', 1)"))
        connection.execute(
            text(
                "INSERT INTO files (id, project_id, purpose, filename, content_type, bytes, created_at) "
                "VALUES ('file-1', 'proj_1', 'fine-tune', 'a', 'text/jsonl', 1, 1)"
            )
        )
        columns = "id, project_id, base, training_file, objective, tuning, hyperparameters, seed, status, created_at, "
        columns += "integrations, step, attempt, crashes, lease_owner, lease_expires_at, pause_requested_at"
        for id, (status, attempt, crashes, owner, lease, pause, published) in JOBS_BEFORE.items():
            values = {"id": id, "status": status, "attempt": attempt, "crashes": crashes, "owner": owner}
            values |= {"lease": lease, "pause": pause}
            told = "'proj_1', 'tiny', 'file-1', 'supervised', '{}', '{}', 1, :status, 1, '[]', 9, :attempt, :crashes, "
            connection.execute(
                text(f"INSERT INTO jobs ({columns}) VALUES (:id, {told} :owner, :lease, :pause)"), values
            )
            if published and revision != "0001":
                connection.execute(text('UPDATE jobs SET publication = \'{"name": "m"}\' WHERE id = :id'), {"id": id})

    return insert


@pytest.mark.parametrize("revision", ["0001", "0002"])
async def test_jobs_of_every_state_are_still_to_be_done_after_the_upgrade(empty: Database, revision: str) -> None:
    await on(empty, to(revision))
    await on(empty, fill(revision))
    await schema.migrate(empty)
    async with empty.reading() as tx:
        found = {work.subject_id: work for id in JOBS_BEFORE for work in await works.find(tx, id)}
        kept = {id: await jobs.find(tx, None, id) for id in JOBS_BEFORE}
        paused = (await tx.connection.execute(text("SELECT subject_id FROM work WHERE paused"))).scalars().all()
        leases = await tx.connection.execute(text("SELECT subject_id, lease_expires_at FROM work"))
        leases = {row.subject_id: row.lease_expires_at for row in leases}
    assert list(found) == [id for id, before in JOBS_BEFORE.items() if before[0] not in FINAL]
    assert [work.subject_id for work in sorted(found.values(), key=lambda work: work.sequence)] == list(found)
    assert paused == ["paused"]
    for id, (status, attempt, crashes, owner, lease, pause, published) in JOBS_BEFORE.items():
        job = kept[id]
        assert job is not None
        assert (job.status, job.step, job.pause_requested_at) == (status, 9, pause)
        assert (job.publication is not None) == (published and revision != "0001")
        if id in found:
            announced = published and revision != "0001"
            kind = "validate" if status == "validating_files" else "announce" if announced else "train"
            work = found[id]
            assert (work.kind, work.project_id, work.base) == (kind, "proj_1", "tiny")
            assert (work.attempt, work.crashes, work.owner, leases[id]) == (attempt, crashes, owner, lease)


async def test_what_was_held_during_the_upgrade_passes_on_when_its_lease_is_over(empty: Database) -> None:
    await on(empty, to("0002"))
    await on(empty, fill("0002"))
    await schema.migrate(empty)
    claimed = []
    async with empty.transaction() as tx:
        for kind in ("validate", "train", "announce"):
            while (found := await works.next_claimable(tx, kind, ["tiny"], suspects=True)) is not None:
                await works.take(tx, found, "worker_3", 60.0, 0)
                claimed.append(found.subject_id)
    assert claimed == ["new", "queued", "lost", "trained"]


async def test_a_downgrade_gives_jobs_their_leases_back(empty: Database) -> None:
    def down(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")

    await on(empty, to("0002"))
    await on(empty, fill("0002"))
    await schema.migrate(empty)
    await on(empty, down)
    async with empty.reading() as tx:
        query = "SELECT id, status, attempt, crashes, lease_owner, lease_expires_at, pause_requested_at FROM jobs"
        rows = {row.id: tuple(row[1:]) for row in await tx.connection.execute(text(query))}
    for id, before in JOBS_BEFORE.items():
        if before[0] not in FINAL:
            assert rows[id] == before[:6], id
    await schema.migrate(empty)
    assert await on(empty, differences) == []


DATA_BEFORE = {  # id: its validation file, where its data lies -> its two objects afterwards
    "unchecked": (None, None, None, None),
    "one-file": (None, "jobs/a/data/1/", "jobs/a/data/1/train.safetensors", None),
    "both": ("file-1", "jobs/b/data/2/", "jobs/b/data/2/train.safetensors", "jobs/b/data/2/valid.safetensors"),
}


def checked_jobs(revision: str) -> Callable[[Connection], None]:
    """Jobs whose tokenised data is still private to them."""

    def insert(connection: Connection) -> None:
        connection.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'one', 1)"))
        connection.execute(
            text(
                "INSERT INTO files (id, project_id, purpose, filename, content_type, bytes, created_at) "
                "VALUES ('file-1', 'proj_1', 'fine-tune', 'a', 'text/jsonl', 1, 1)"
            )
        )
        for id, (validation_file, prefix, _, _) in DATA_BEFORE.items():
            values = {"id": id, "project_id": "proj_1", "base": "tiny", "training_file": "file-1", "seed": 1, "step": 0}
            values |= {"objective": "supervised", "tuning": "{}", "hyperparameters": "{}", "integrations": "[]"}
            values |= {"validation_file": validation_file, "data_prefix": prefix, "status": "queued", "created_at": 1}
            if revision < "0003":
                values |= {"attempt": 1, "crashes": 0}
            places = ", ".join(f":{name}" for name in values)
            connection.execute(text(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({places})"), values)

    return insert


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
async def test_jobs_still_name_their_own_tokenised_data_after_the_upgrade(empty: Database, revision: str) -> None:
    await on(empty, to(revision))
    await on(empty, checked_jobs(revision))
    await schema.migrate(empty)
    async with empty.reading() as tx:
        for id, (_, _, training, validation) in DATA_BEFORE.items():
            job = await jobs.find(tx, None, id)
            assert job is not None
            assert (job.training_data, job.validation_data) == (training, validation)


async def test_jobs_of_an_older_revision_are_found_by_their_metadata(empty: Database) -> None:
    await on(empty, to("0012"))
    rows = {1: '{"team": "a", "run": "1"}', 2: None, 3: "{}"}
    columns = "id, project_id, base, training_file, objective, tuning, hyperparameters, seed, status, created_at, "
    columns += "integrations, step, sequence, metadata"
    async with empty.transaction() as tx:
        await tx.connection.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'one', 1)"))
        file = "('file-1', 'proj_1', 'fine-tune', 'a', 'b', 1, 1)"
        await tx.connection.execute(
            text(
                f"INSERT INTO files (id, project_id, purpose, filename, content_type, bytes, created_at) VALUES {file}"
            )
        )
        for sequence, pairs in rows.items():
            values = "'proj_1', 'base', 'file-1', 'supervised', '{}', '{}', 1, 'succeeded', 1, '[]', 0"
            values = f"'ftjob-{sequence}', {values}, {sequence}, :pairs"
            await tx.connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"), {"pairs": pairs})
    await schema.migrate(empty)
    async with empty.reading() as tx:
        found = await tx.connection.execute(text("SELECT job_sequence, key, value, project_id FROM job_metadata"))
        pairs = sorted(tuple(row) for row in found)
    assert pairs == [(1, "run", "1", "proj_1"), (1, "team", "a", "proj_1")]
