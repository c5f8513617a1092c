"""What tests of the SDK share: the service on a socket with an engine that is scripted, and clients of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from luthier import AsyncLuthier, Luthier
from luthier import retries as client_retries

from service.api.routes import jobs as event_stream
from service.settings.settings import Settings
from tests.given.scripted_engine import ScriptedEngine

CATALOGUE = """
[[base]]
id = "luthier-tiny"
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { tunings = ["lora"] }
"""


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: what is asked here is decided before it."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    catalogue = tmp_path / "bases.toml"
    catalogue.write_text(CATALOGUE)
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url, catalogue=catalogue, webhook_private=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Short delays, and a home of its own."""
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(client_retries, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("LUTHIER_URL", "LUTHIER_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def sdk(base_url: str, key: str) -> AsyncIterator[AsyncLuthier]:
    async with AsyncLuthier(url=base_url, api_key=key) as sdk:
        yield sdk


@pytest.fixture
async def sync_sdk(base_url: str, key: str) -> AsyncIterator[Luthier]:
    """Its calls belong into a thread: the service runs in this one."""
    sdk = Luthier(url=base_url, api_key=key)
    yield sdk
    await asyncio.to_thread(sdk.close)


@pytest.fixture
def configured(base_url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The environment that the command finds the service by; its URL."""
    monkeypatch.setenv("LUTHIER_URL", base_url)
    monkeypatch.setenv("LUTHIER_API_KEY", key)
    monkeypatch.setenv("COLUMNS", "160")
    yield base_url
