"""Downloads that the S3 server answers itself, where the installation wants that; the SDK follows by itself."""

from collections.abc import AsyncIterator

import httpx
import pytest
from openai import AsyncOpenAI

from service.installation.context import Context
from service.settings.settings import Settings
from tests.given.files_by_http import upload
from tests.given.installation import installed
from tests.servers.radosgw import Radosgw

pytestmark = pytest.mark.slow


@pytest.fixture
async def ctx(radosgw: Radosgw, settings: Settings) -> AsyncIterator[Context]:
    """An installation that redirects downloads."""
    changed = {**radosgw.settings, "storage_url": radosgw.new_bucket(), "storage_presigned": True}
    async with installed(Settings(**(settings.model_dump() | changed))) as ctx:
        yield ctx


async def test_a_download_is_redirected_to_the_server_and_the_sdk_follows(
    radosgw: Radosgw, client: httpx.AsyncClient, base_url: str, key: str
) -> None:
    content = b'{"messages": []}\n' * 1000
    file = await upload(client, content)
    answer = await client.get(f"/files/{file['id']}/content")
    assert answer.status_code == 307
    assert answer.headers["location"].startswith(radosgw.endpoint)
    async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        assert (await sdk.files.content(file["id"])).read() == content
    async with httpx.AsyncClient() as anybody:
        fetched = await anybody.get(answer.headers["location"])
        assert fetched.content == content
        assert "train.jsonl" in fetched.headers["content-disposition"]
        tampered = answer.headers["location"].replace(file["id"], "file-other")
        assert (await anybody.get(tampered)).status_code == 403


async def test_only_the_project_is_told_where_its_file_is(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    file = await upload(client, b'{"messages": []}\n')
    assert (await stranger.get(f"/files/{file['id']}/content")).status_code == 404
