"""The schema's version: `migrate` brings the database up to date, `check` rejects an older or newer one.

The steps themselves are alembic revisions in `migrations/versions`. Only `luthierd up` and `luthierd migrate` migrate.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select

from service.db.connection import Database, PoolLimits

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x4C555448  # any number that nothing else locks
PATIENCE = PoolLimits(connections=1, command_seconds=3600, lock_seconds=600)


class SchemaError(Exception):
    """The database's schema is not the one of this version; the message says what to do."""


async def migrate(database: Database) -> None:
    """Runs every missing migration, if any. Of two at once, one waits for the other.

    Raises SchemaError for a database that a newer version has migrated.
    """
    patient = Database(database.url, PATIENCE)
    try:
        async with patient.transaction() as tx:
            await tx.connection.run_sync(_upgrade)
    finally:
        await patient.close()


async def check(database: Database) -> None:
    """Raises SchemaError unless the database has exactly this version's schema."""
    async with database.reading() as tx:
        current = await tx.connection.run_sync(_current)
    if current is not None and current not in _known():
        raise _newer(current)
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if current != head:
        raise SchemaError(
            f"The database's schema is at revision {current or 'none'}, this version needs {head}: "
            "run `luthierd migrate` first."
        )


def _newer(current: str) -> SchemaError:
    return SchemaError(
        f"The database's schema is at revision {current}, which this version does not know: a newer Luthier has "
        "migrated it. Run that version, or restore a backup from before."
    )


def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # SQLite has had its one write lock since BEGIN
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    config = _config()
    current = _current(connection)
    if current is not None and current not in _known():
        raise _newer(current)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
