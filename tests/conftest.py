"""Fixtures that every suite shares: an installation in a folder of its own, and HTTP clients of its API."""

import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.installation.context import Context
from service.operations import keys
from service.operations.keys import Caller
from service.processes.forks import ADDRESS
from service.settings.settings import Settings
from tests.given.forked_process import fork_address
from tests.given.installation import installed
from tests.given.scripted_engine import ScriptedEngine, scripted_engine
from tests.given.served_api import served

pytest_plugins = [
    "tests.servers.postgres",
    "tests.servers.radosgw",
    "tests.servers.valkey",
    "tests.servers.shared_vllm",
    "tests.compiled_statements",
    "tests.side_by_side",
    "tests.transaction_rules",
]

DEFAULTS = Settings(engine_urls="http://127.0.0.1:1")  # once: to read them takes 2 ms
ClientOf = Callable[[str], httpx.AsyncClient]


gc.disable()  # while tests are imported and collected: a million objects that stay, which would be looked through again


def pytest_collection_finish() -> None:
    """One thread where tests import torch, which others do not load: two on shared cores make small operations slow."""
    gc.freeze()  # nor does any collection of a test look through them
    gc.enable()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True)
def no_setting_is_left_behind() -> Iterator[None]:
    """A setting, or the address of a fork server, that a test leaves in the environment would change those after it."""
    before = _settings_of_the_environment()
    yield
    assert _settings_of_the_environment() == before


def _settings_of_the_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "LUTHIER" in name}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Embedded defaults in a temporary folder; no engine listens."""
    return DEFAULTS.model_copy(update={"data_dir": tmp_path / "data"})


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    """An engine that responds as a test scripts it."""
    async with scripted_engine() as engine:
        yield engine


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """An empty database of each kind: every test of an installation runs on both. PostgreSQL's is migrated already."""
    if request.param == "sqlite":
        yield settings.database_url
        return
    with request.getfixturevalue("postgres").lent_database() as url:  # a server is started only where it is needed
        yield url


@pytest.fixture
async def ctx(settings: Settings, database_url: str) -> AsyncIterator[Context]:
    """A fresh installation, with no project yet. Its settings, database included, are `ctx.settings`."""
    async with installed(settings.model_copy(update={"database_url": database_url})) as ctx:
        yield ctx


@pytest.fixture
async def key(ctx: Context) -> str:
    """The first start's key, of the default project."""
    key = await keys.ensure_installation(ctx)
    assert key is not None
    return key


@pytest.fixture
async def caller(ctx: Context, key: str) -> Caller:
    """Whom `key` stands for."""
    return await keys.authenticate(ctx, key)


@pytest.fixture
async def stranger_key(ctx: Context, key: str) -> str:
    """A key of another project of the same installation."""
    return await keys.create_key(ctx, "another project", "project")


@pytest.fixture
async def app(ctx: Context) -> FastAPI:
    """The API on this installation, in this process."""
    return create_app(ctx)


@pytest.fixture
async def base_url(app: FastAPI) -> AsyncIterator[str]:
    """The API on a socket: for what an in-process client cannot see, such as when bytes come and who hangs up."""
    async with served(app) as url:
        yield url


@pytest.fixture
async def client_of(app: FastAPI) -> AsyncIterator[ClientOf]:
    """Makes a client for a key."""
    made: list[httpx.AsyncClient] = []

    def make(key: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}"}
        made.append(httpx.AsyncClient(transport=transport, base_url="http://luthier/v1", headers=headers))
        return made[-1]

    yield make
    for client in made:
        await client.aclose()


@pytest.fixture
async def client(client_of: ClientOf, key: str) -> httpx.AsyncClient:
    """A client of the default project."""
    return client_of(key)


@pytest.fixture
async def stranger(client_of: ClientOf, stranger_key: str) -> httpx.AsyncClient:
    """A client of another project."""
    return client_of(stranger_key)


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that this test's process starts are forked: their imports have been done once."""
    monkeypatch.setenv(ADDRESS, fork_address())
