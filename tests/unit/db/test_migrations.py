"""Every revision leads to the schema that the code knows, and rows of an older one are still there afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from service.db.connection import Database
from service.db.schema import MIGRATIONS, migrate
from service.db.tables import metadata


def config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


REVISIONS = [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'luthier.db'}")
    yield database
    await database.close()


async def bring_to(database: Database, revision: str) -> None:
    def upgrade(connection: Connection) -> None:
        made = config()
        made.attributes["connection"] = connection
        command.upgrade(made, revision)

    async with database.engine.connect() as connection:
        await connection.run_sync(upgrade)
        await connection.commit()


@pytest.mark.parametrize("revision", REVISIONS)
async def test_every_revision_is_brought_to_the_schema_of_the_code(database: Database, revision: str) -> None:
    await bring_to(database, revision)
    async with database.engine.begin() as connection:
        await connection.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'one', 1)"))
    await migrate(database)
    async with database.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
        kept = (await connection.execute(text("SELECT name FROM projects"))).scalars().all()
    assert differences == []
    assert kept == ["one"]


async def test_jobs_of_an_older_revision_are_found_by_their_metadata(database: Database) -> None:
    await bring_to(database, "0012")
    rows = {1: '{"team": "a", "run": "1"}', 2: None, 3: "{}"}
    columns = "id, project_id, base, training_file, objective, tuning, hyperparameters, seed, status, created_at, "
    columns += "integrations, step, sequence, metadata"
    async with database.engine.begin() as connection:
        await connection.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('proj_1', 'one', 1)"))
        file = "('file-1', 'proj_1', 'fine-tune', 'a', 'b', 1, 1)"
        await connection.execute(
            text(
                f"INSERT INTO files (id, project_id, purpose, filename, content_type, bytes, created_at) VALUES {file}"
            )
        )
        for sequence, pairs in rows.items():
            values = "'proj_1', 'base', 'file-1', 'supervised', '{}', '{}', 1, 'succeeded', 1, '[]', 0"
            values = f"'ftjob-{sequence}', {values}, {sequence}, :pairs"
            await connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"), {"pairs": pairs})
    await migrate(database)
    async with database.engine.connect() as connection:
        found = await connection.execute(text("SELECT job_sequence, key, value, project_id FROM job_metadata"))
    assert sorted(tuple(row) for row in found) == [(1, "run", "1", "proj_1"), (1, "team", "a", "proj_1")]
