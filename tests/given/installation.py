"""A migrated installation of any settings, for as long as a block lasts.

A test that only needs a schema does not run the migrations: an embedded database is a copy of one that did, made once
per process. The migrations themselves are tested in tests/unit/db and tests/contract/test_schema.py.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import make_url

from service.db.connection import Database
from service.db.schema import migrate
from service.installation.context import Context
from service.installation.create import create_context
from service.settings.settings import Settings


@asynccontextmanager
async def installed(settings: Settings) -> AsyncIterator[Context]:
    """The installation, with no project yet. A database on PostgreSQL has its schema already."""
    await give_schema(settings)
    ctx = create_context(settings)
    try:
        yield ctx
    finally:
        await ctx.close()


async def give_schema(settings: Settings) -> None:
    """Makes the embedded database of `settings` where it is missing; a database that is there is left as it is."""
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not (file := Path(url.database or "")).exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(await asyncio.to_thread(_template), file)


@cache
def _template() -> Path:
    """An embedded database that every migration has run on."""
    path = Path(_folder().name) / "luthier.db"
    asyncio.run(_migrate(path))
    return path


@cache
def _folder() -> TemporaryDirectory[str]:
    """Removed when this process ends."""
    return TemporaryDirectory(prefix="luthier-schema-")


async def _migrate(path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{path}")
    try:
        await migrate(database)
    finally:
        await database.close()
