"""A database file that was moved or replaced is noticed by the next transaction, and used again when it is back."""

from pathlib import Path

import httpx
import pytest

from service.api.routes import health
from service.domain.errors import Unavailable
from service.installation.context import Context
from service.operations import keys


@pytest.fixture
def database_url() -> str:
    """The embedded database: PostgreSQL's files are its server's business."""
    return ""


async def test_a_file_that_was_moved_is_a_503_until_it_is_back(
    ctx: Context, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "KEPT_SECONDS", 0.0)
    file = ctx.settings.data_dir / "luthier.db"
    assert (await client.get("/models")).status_code == 200
    moved = file.rename(file.with_name("elsewhere.db"))
    response = await client.post("/files", files={"file": ("a", b"x")}, data={"purpose": "user_data"})
    assert (response.status_code, "database file was moved" in response.text) == (503, True)
    assert (await client.get("/../health")).status_code == 503
    assert not file.exists()  # no empty one was begun in its place
    moved.rename(file)
    assert await keys.list_keys(ctx)
    assert (await client.get("/../health")).status_code == 200


async def test_another_file_in_its_place_is_not_used(ctx: Context, key: str, tmp_path: Path) -> None:
    file = ctx.settings.data_dir / "luthier.db"
    file.rename(tmp_path / "kept.db")
    file.touch()
    with pytest.raises(Unavailable, match="moved or replaced"):
        await keys.list_keys(ctx)
