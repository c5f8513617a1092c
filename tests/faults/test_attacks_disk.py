"""A disk that a project has filled: health reports it, and deleting works and makes room."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api.routes import health
from service.installation.context import Context
from service.operations import chores
from service.settings.settings import Settings
from tests.given.small_disk import fill, small_disk

MIB = 1024 * 1024


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with small_disk(tmp_path / "data", 24 * MIB) as folder:
        yield Settings(data_dir=folder, engine_urls="")


@pytest.fixture
def database_url() -> str:
    """The embedded database, beside which the reserve is."""
    return ""


async def test_what_fills_the_disk_can_be_deleted(
    ctx: Context, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "KEPT_SECONDS", 0.0)
    await chores.sweep(ctx)
    reserve = ctx.settings.data_dir / "reserve"
    assert reserve.stat().st_size == ctx.settings.reserve_bytes
    form = {"files": {"file": ("a", b"x" * 9 * MIB)}, "data": {"purpose": "user_data"}}
    id = (await client.post("/files", **form)).json()["id"]
    assert (await client.get("http://luthier/readyz")).status_code == 200
    fill(ctx.settings.data_dir)
    ready = await client.get("http://luthier/readyz")
    assert (ready.status_code, ready.json()["storage"]) == (503, "unavailable")
    assert (await client.get("http://luthier/health")).status_code == 503
    assert (await client.get("http://luthier/livez")).status_code == 200
    assert (await client.post("/files", **form)).status_code == 503
    assert (await client.delete(f"/files/{id}")).status_code == 200
    assert not reserve.exists()
    await chores.sweep(ctx)
    assert (await client.get("http://luthier/readyz")).status_code == 200
    await chores.sweep(ctx)
    assert reserve.stat().st_size == ctx.settings.reserve_bytes
