"""Checks through HTTP, as their users see them; a worker's part is done in this process."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.installation.context import Context
from service.recipes.base import Base
from service.settings.settings import Settings
from tests.given.checks import claimed, work_through
from tests.given.files_by_http import upload
from tests.given.installation import installed
from tests.given.journey import rows
from tests.given.running_service import write_catalogue
from tests.given.tiny_models import make_tiny_base

CHECKS = "/fine_tuning/checks"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
async def ctx(settings: Settings, tmp_path: Path, base: Base) -> AsyncIterator[Context]:
    catalogue = write_catalogue(tmp_path / "bases.toml", base)
    async with installed(settings.model_copy(update={"catalogue": catalogue})) as ctx:
        yield ctx


async def create(client: httpx.AsyncClient, content: bytes = b"", **fields: Any) -> dict[str, Any]:
    file = (await upload(client, content or rows(12)))["id"]
    response = await client.post(CHECKS, json={"model": "tiny", "training_file": file, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def done(ctx: Context, client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    held = await claimed(ctx)
    assert held is not None and held.check.id == id
    await work_through(ctx, held)
    found: dict[str, Any] = (await client.get(f"{CHECKS}/{id}")).json()
    return found


async def test_a_check_is_made_read_listed_and_deleted(ctx: Context, client: httpx.AsyncClient) -> None:
    made = await create(client, suffix="mine", metadata={"a": "b"}, tuning={"type": "prompt"})
    assert made["object"] == "fine_tuning.check" and made["id"].startswith("ftcheck-")
    assert (made["status"], made["result"], made["finished_at"], made["error"]) == ("queued", None, None, None)
    assert made["method"] == {"type": "supervised", "supervised": {"hyperparameters": made["hyperparameters"]}}
    assert made["tuning"]["type"] == "prompt"
    found = await done(ctx, client, made["id"])
    assert (found["status"], found["result"]["valid"]) == ("succeeded", True)
    assert found["result"]["training_file"]["counts"]["rows"] == 12
    assert found["result"]["plan"]["total_steps"] == 96
    listed = (await client.get(CHECKS)).json()
    assert (listed["data"], listed["has_more"]) == ([{**found, "result": None}], False)
    gone = await client.delete(f"{CHECKS}/{made['id']}")
    assert gone.json() == {"id": made["id"], "object": "fine_tuning.check", "deleted": True}
    assert (await client.get(f"{CHECKS}/{made['id']}")).status_code == 404
    assert (await client.get(CHECKS)).json()["data"] == []


async def test_the_rows_of_a_check_are_read_in_ranges(ctx: Context, client: httpx.AsyncClient) -> None:
    id = (await create(client))["id"]
    early = await client.get(f"{CHECKS}/{id}/rows")
    assert early.status_code == 400 and "its status is 'queued'" in early.json()["error"]["message"]
    await done(ctx, client, id)
    found = (await client.get(f"{CHECKS}/{id}/rows", params={"start": 4, "limit": 2})).json()
    assert (found["object"], found["total"], found["has_more"]) == ("fine_tuning.check.rows", 12, True)
    assert [row["line"] for row in found["data"]] == [5, 6]
    pieces = found["data"][0]["sequences"][0]["pieces"]
    assert [piece["trained"] for piece in pieces] == [False, True]
    for query in [{"start": -1}, {"limit": 101}, {"file": "another"}, {"file": "validation_file"}]:
        assert (await client.get(f"{CHECKS}/{id}/rows", params=query)).status_code == 400


async def test_a_check_is_refused_for_what_a_job_is_refused_for(client: httpx.AsyncClient) -> None:
    file = (await upload(client, rows(12)))["id"]
    for wrong, param in [
        ({"model": "nothing"}, None),
        ({"training_file": "file-nothing"}, "training_file"),
        ({"tuning": {"type": "ia3"}}, "tuning.type"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"learning_rate": 1}, "learning_rate"),
    ]:
        refused = await client.post(CHECKS, json={"model": "tiny", "training_file": file, **wrong})
        as_job = await client.post("/fine_tuning/jobs", json={"model": "tiny", "training_file": file, **wrong})
        assert refused.status_code == 400
        assert refused.json() == as_job.json()
        assert refused.json()["error"]["param"] == param


async def test_another_projects_check_is_not_there(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    id = (await create(client))["id"]
    answers = [
        await stranger.get(f"{CHECKS}/{id}"),
        await stranger.get(f"{CHECKS}/{id}/rows"),
        await stranger.delete(f"{CHECKS}/{id}"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert answers[0].json()["error"]["code"] == "check_not_found"
    assert (await stranger.get(CHECKS)).json()["data"] == []
    assert (await client.get(f"{CHECKS}/{id}")).json()["status"] == "queued"
