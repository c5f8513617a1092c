"""Checks made and done in the test's own process, as a user asks for them and a worker does them.

The database is used directly because no operation ends a lease, lets time pass, or shows what is still to be done.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from service.db import work
from service.db.tables import checks as rows
from service.db.tables import datasets
from service.db.tables import work as work_rows
from service.domain.check import Check, CheckResult
from service.installation.context import Context
from service.operations import checks, files
from service.operations.check_work import CHECK, HeldCheck
from service.operations.checks import result_of
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.recipes.base import Base
from service.settings.settings import Settings
from service.storage.base import one_chunk
from service.work import claims
from tests.given.installation import installed
from tests.given.running_service import write_catalogue
from workers.jobs.check import CheckRun
from workers.jobs.loading import Tokenizers


@asynccontextmanager
async def installation_for_checks(settings: Settings, folder: Path, base: Base, url: str) -> AsyncIterator[Context]:
    """One base, and limits that a test reaches; the orphan sweep takes everything for old."""
    changed = {
        "catalogue": write_catalogue(folder / "bases.toml", base),
        "database_url": url,
        "orphan_age_seconds": 0,
        "project_jobs": 3,
        "crash_limit": 2,
    }
    async with installed(settings.model_copy(update=changed)) as ctx:
        yield ctx


async def upload(ctx: Context, caller: Caller, content: bytes) -> str:
    """A training file; its id."""
    async with files.incoming(ctx) as incoming:
        await incoming.store(one_chunk(content))
        return (await incoming.create(caller, files.NewFile("a.jsonl", "fine-tune"))).id


async def create(ctx: Context, caller: Caller, training_file: str, model: str = "tiny", **fields: Any) -> str:
    """A check that waits for a worker; its id."""
    new = NewJob(model=model, training_file=training_file, seed=1, **fields)
    return (await checks.create(ctx, caller, new)).id


async def claimed(ctx: Context, owner: str = "worker") -> HeldCheck | None:
    """The next check, held by `owner`."""
    found = await claims.claim(ctx, CHECK, owner, list(ctx.catalogue.bases))
    return None if found is None else HeldCheck(ctx, found)


async def work_through(ctx: Context, held: HeldCheck) -> None:
    """What a worker does with a check that it holds."""
    base = ctx.catalogue.bases[held.check.base]
    await CheckRun(held, base, _tokenizers(base.source), ctx.settings.scratch_dir).run()


@cache
def _tokenizers(source: str) -> Tokenizers:
    """As a worker keeps them, for the bases of one test file."""
    return Tokenizers()


async def checked(
    ctx: Context, caller: Caller, training: bytes, validation: bytes | None = None, **fields: Any
) -> Check:
    """A check of these files that is done."""
    if validation is not None:
        fields["validation_file"] = await upload(ctx, caller, validation)
    id = await create(ctx, caller, await upload(ctx, caller, training), **fields)
    held = await claimed(ctx)
    assert held is not None and held.check.id == id
    await work_through(ctx, held)
    return await checks.retrieve(ctx, caller, id)


def result(check: Check) -> CheckResult:
    """The result of a check that was done."""
    found = result_of(check)
    assert found is not None, check.error
    return found


async def let_pass(ctx: Context, id: str, seconds: int) -> None:
    """The check, as if it had been made that much earlier."""
    async with ctx.database.transaction() as tx:
        earlier = update(rows).where(rows.c.id == id).values(created_at=rows.c.created_at - seconds)
        await tx.connection.execute(earlier)


async def end_lease(ctx: Context, id: str) -> None:
    """Whoever holds the check has been silent for too long."""
    async with ctx.database.transaction() as tx:
        ended = update(work_rows).where(work_rows.c.subject_id == id).values(lease_expires_at=0.0)
        await tx.connection.execute(ended)


async def waits(ctx: Context, id: str) -> bool:
    """Whether there is still something to do for the check."""
    async with ctx.database.reading() as tx:
        return bool(await work.find(tx, id))


async def described(ctx: Context) -> list[int | None]:
    """What is stored beside each tokenised file, by version."""
    async with ctx.database.reading() as tx:
        return list((await tx.connection.execute(select(datasets.c.described))).scalars())
