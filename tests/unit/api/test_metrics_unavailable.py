"""/metrics while the database is unavailable: the scrape says so, in time, to admins whose key was seen before."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.api.app import create_app
from service.api.web.admins import Admins
from service.api.web.auth import CACHE_SECONDS, KnownKeys
from service.installation.context import Context
from service.operations import keys
from service.settings.settings import Settings
from tests.given.installation import installed
from tests.given.scrapes import BASE, METRICS, scrape
from tests.servers.bad_line import BadLine
from tests.servers.postgres import Postgres

PATIENCE_SECONDS = 60.0  # a bound for the test: the limits of the looks themselves are below Prometheus' 10


@asynccontextmanager
async def watched(settings: Settings) -> AsyncIterator[tuple[Context, httpx.AsyncClient, str]]:
    """A new installation that an admin has just scraped, and whose API has forgotten every key since."""
    async with installed(settings) as ctx:
        await keys.ensure_installation(ctx)
        late = await keys.create_key(ctx, "operators", "admin")
        app, now = create_app(ctx), [100.0]
        app.state.admins = Admins(KnownKeys(ctx, clock=lambda: now[0]))
        headers = {"Authorization": f"Bearer {await keys.create_key(ctx, 'operators', 'admin')}"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), headers=headers) as admin:
            await up(admin)
            now[0] += CACHE_SECONDS
            await ctx.database.close()  # the pool's connections; it makes new ones
            yield ctx, admin, late
    await asyncio.sleep(0.2)  # the threads of the failed connections still report to this loop


async def up(admin: httpx.AsyncClient) -> None:
    """Until a scrape sees the database: a busy machine may be slower than a look at it."""
    for _ in range(20):
        if (await scrape(admin)).value("luthier_database_up"):
            return
    raise AssertionError("the database is there, and no scrape sees it")


async def check_without_database(admin: httpx.AsyncClient, unseen_key: str) -> None:
    """What the process knows is told, in time; to no key that was never seen."""
    began = time.monotonic()
    page = await scrape(admin)
    assert time.monotonic() - began < PATIENCE_SECONDS
    assert page.value("luthier_database_up") == 0
    assert page.value("luthier_jobs", status="queued", **BASE) is None
    assert page.value("luthier_http_requests_total", method="GET", route="/metrics", status="200")
    unseen = await admin.get(METRICS, headers={"Authorization": f"Bearer {unseen_key}"})
    assert (unseen.status_code, unseen.json()["error"]["type"]) == (503, "server_error")


async def test_a_scrape_tells_that_the_database_is_gone(settings: Settings) -> None:
    async with watched(settings) as (ctx, admin, unseen_key):
        database = Path(ctx.database.url.database or "")
        database.rename(f"{database}.elsewhere")
        database.mkdir()
        await check_without_database(admin, unseen_key)
        database.rmdir()
        Path(f"{database}.elsewhere").rename(database)
        await up(admin)


@pytest.mark.slow
async def test_a_scrape_tells_that_the_database_is_silent(settings: Settings, postgres: Postgres) -> None:
    line = BadLine(postgres.port)
    with postgres.lent_database() as url:
        async with line.listening() as endpoint:
            url = url.replace(f":{postgres.port}/", f":{urlsplit(endpoint).port}/")
            async with watched(settings.model_copy(update={"database_url": url})) as (_, admin, unseen_key):
                line.silent = 1000
                await check_without_database(admin, unseen_key)
                line.silent = 0
                await up(admin)
