"""What several API processes may promise, and what each of them gets."""

from pathlib import Path

import httpx
import pytest

from service.api.app import create_app
from service.commands.api_processes import check_processes
from service.domain.errors import RateLimited
from service.gateway.forward import EngineRequest
from service.installation.context import Context
from service.installation.create import opened
from service.operations import keys
from service.settings.settings import Settings


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: nothing here is asked of it."""
    return ""


def test_limits_that_no_process_could_keep_are_refused(tmp_path: Path) -> None:
    check_processes(Settings(data_dir=tmp_path, requests_per_minute=60))
    check_processes(Settings(data_dir=tmp_path, api_processes=2))
    limited = Settings(data_dir=tmp_path, api_processes=2, tokens_per_minute=60)
    with pytest.raises(ValueError, match="LUTHIER_REDIS_URL"):
        check_processes(limited)
    check_processes(limited.model_copy(update={"redis_url": "redis://127.0.0.1:1"}))
    with pytest.raises(ValueError, match="LUTHIER_PORT"):
        check_processes(Settings(data_dir=tmp_path, api_processes=2, port=0))


@pytest.mark.parametrize(("redis_url", "share"), [("", 2), ("redis://127.0.0.1:1", 3)])
async def test_each_process_has_its_share_of_a_projects_requests(tmp_path: Path, redis_url: str, share: int) -> None:
    """Where Redis counts those of all processes, each may have all of them."""
    settings = Settings(data_dir=tmp_path, api_processes=2, project_requests=3, redis_url=redis_url)
    async with opened(settings) as ctx:
        request = EngineRequest("completions", "proj_1", "luthier-tiny", "luthier-tiny", {})
        released = [await ctx.places.take(request) for _ in range(share)]
        with pytest.raises(RateLimited):
            await ctx.places.take(request)
        for release in released:
            release()


async def test_series_of_a_process_have_its_number(ctx: Context, key: str) -> None:
    admin = await keys.create_key(ctx, "default", "admin")
    pages = []
    for number in (None, 2):
        transport = httpx.ASGITransport(create_app(ctx, number))
        async with httpx.AsyncClient(transport=transport, base_url="http://luthier") as client:
            pages.append((await client.get("/metrics", headers={"Authorization": f"Bearer {admin}"})).text)
    assert 'luthier_tokens_total{base="luthier-tiny",kind="prompt"} 0.0' in pages[0]
    assert 'luthier_tokens_total{base="luthier-tiny",kind="prompt",process="2"} 0.0' in pages[1]
    assert "luthier_database_up 1.0" in pages[0] and "luthier_database_up 1.0" in pages[1]
