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
from sqlalchemy import Connection

from service.db import schema
from service.db.connection import Database
from service.db.tables import metadata

SCRIPTS = Config()
SCRIPTS.set_main_option("script_location", str(schema.MIGRATIONS))
REVISIONS = [script.revision for script in ScriptDirectory.from_config(SCRIPTS).walk_revisions()]


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


@pytest.mark.parametrize("revision", REVISIONS)
async def test_every_earlier_revision_comes_up(empty: Database, revision: str) -> None:
    await on(empty, to(revision))
    await schema.migrate(empty)
    assert await on(empty, differences) == []
    await schema.check(empty)


async def test_a_missing_column_is_a_difference(empty: Database) -> None:
    await schema.migrate(empty)
    async with empty.transaction() as tx:
        await tx.connection.exec_driver_sql("ALTER TABLE files DROP COLUMN swept_at")
    assert "swept_at" in str(await on(empty, differences))


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
