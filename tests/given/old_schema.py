"""An installation as an earlier version left it.

The database is used directly because no operation takes a schema back.
"""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from service.db import schema
from service.installation.context import Context


async def bring_back(ctx: Context, revision: str) -> None:
    """Takes the schema back to `revision`, with the data that it knew."""

    def downgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, revision)

    async with ctx.database.transaction() as tx:
        await tx.connection.run_sync(downgrade)


async def bring_up(ctx: Context) -> None:
    """What `luthierd migrate` does; the old schema is refused before."""
    try:
        await schema.check(ctx.database)
    except schema.SchemaError:
        await schema.migrate(ctx.database)
    else:
        raise AssertionError("this is no old schema")
