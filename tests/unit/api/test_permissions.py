"""Checkpoint permissions through HTTP: a granted project may call the checkpoint, another may not."""

from typing import Any

import httpx
import pytest

from service.domain.errors import ModelNotFound
from service.installation.context import Context
from service.operations import keys
from service.operations.keys import Caller
from service.operations.models import resolve_for_inference
from tests.conftest import ClientOf
from tests.given.jobs_by_http import create
from tests.given.stored_models import add_model

CHECKPOINT = "ft:luthier-tiny:luthier:x:BBBBBBBB:ckpt-step-10"
PERMISSIONS = f"/fine_tuning/checkpoints/{CHECKPOINT}/permissions"


@pytest.fixture
async def checkpoint(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> str:
    job = await create(client)
    return await add_model(ctx, caller, job["id"], CHECKPOINT)


@pytest.fixture
async def other(ctx: Context, stranger_key: str) -> Caller:
    """Whom the stranger's key stands for."""
    return await keys.authenticate(ctx, stranger_key)


async def granted(client: httpx.AsyncClient, *project_ids: str) -> list[dict[str, Any]]:
    response = await client.post(PERMISSIONS, json={"project_ids": project_ids})
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


async def projects(ctx: Context, count: int) -> list[str]:
    return [await keys.create_project(ctx, f"project {number}") for number in range(count)]


async def test_a_granted_project_may_call_the_checkpoint_until_it_is_revoked(
    ctx: Context, client: httpx.AsyncClient, stranger: httpx.AsyncClient, other: Caller, checkpoint: str
) -> None:
    with pytest.raises(ModelNotFound):
        await resolve_for_inference(ctx, other, checkpoint)
    (permission,) = await granted(client, other.project_id)
    assert list(permission) == ["id", "object", "created_at", "project_id"]
    assert (permission["object"], permission["project_id"]) == ("checkpoint.permission", other.project_id)
    assert permission["id"].startswith("cp_")
    assert (await resolve_for_inference(ctx, other, checkpoint)).name_for_engine == checkpoint
    assert (await stranger.get(f"/models/{checkpoint}")).status_code == 200
    assert checkpoint in [model["id"] for model in (await stranger.get("/models")).json()["data"]]

    answer = await client.delete(f"{PERMISSIONS}/{permission['id']}")
    assert answer.json() == {"id": permission["id"], "object": "checkpoint.permission", "deleted": True}
    with pytest.raises(ModelNotFound):
        await resolve_for_inference(ctx, other, checkpoint)
    assert checkpoint not in [model["id"] for model in (await stranger.get("/models")).json()["data"]]
    assert (await client.delete(f"{PERMISSIONS}/{permission['id']}")).status_code == 404


async def test_a_third_project_gains_nothing_by_a_grant(
    ctx: Context, client: httpx.AsyncClient, other: Caller, checkpoint: str
) -> None:
    (third,) = await projects(ctx, 1)
    await granted(client, other.project_id)
    with pytest.raises(ModelNotFound):
        await resolve_for_inference(ctx, Caller(third, "project", "org", "luthier", "key"), checkpoint)


async def test_to_call_is_not_to_own(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, other: Caller, checkpoint: str
) -> None:
    (permission,) = await granted(client, other.project_id)
    refused = await stranger.delete(f"/models/{checkpoint}")
    assert refused.status_code == 403
    assert refused.json()["error"]["message"].endswith("your project may call it, not delete it.")
    assert (await stranger.get(PERMISSIONS)).json()["data"] == []
    assert (await stranger.delete(f"{PERMISSIONS}/{permission['id']}")).status_code == 404
    assert (await stranger.post(PERMISSIONS, json={"project_ids": [other.project_id]})).status_code == 404
    error = (await stranger.post("/fine_tuning/jobs", json={"model": checkpoint, "training_file": "f"})).json()["error"]
    assert error["code"] == "model_not_available"


async def test_an_admin_key_grants_for_every_project(
    ctx: Context, client_of: ClientOf, other: Caller, checkpoint: str
) -> None:
    admin = client_of(await keys.create_key(ctx, "administration", "admin"))
    await granted(admin, other.project_id)
    assert len((await admin.get(PERMISSIONS)).json()["data"]) == 1
    await resolve_for_inference(ctx, other, checkpoint)


async def test_a_deleted_model_is_granted_to_nobody(
    ctx: Context, client: httpx.AsyncClient, other: Caller, checkpoint: str
) -> None:
    await granted(client, other.project_id)
    await client.delete(f"/models/{checkpoint}")
    with pytest.raises(ModelNotFound):
        await resolve_for_inference(ctx, other, checkpoint)
    assert (await client.get(PERMISSIONS)).json()["data"] == []
    assert (await client.post(PERMISSIONS, json={"project_ids": [other.project_id]})).status_code == 404


async def test_permissions_are_paged_in_both_orders(ctx: Context, client: httpx.AsyncClient, checkpoint: str) -> None:
    made = await projects(ctx, 4)
    assert [one["project_id"] for one in await granted(client, *made)] == made
    assert [one["project_id"] for one in await granted(client, made[2], made[0], made[2])] == [made[2], made[0]]

    async def listed(**query: Any) -> tuple[list[int], bool]:
        page = (await client.get(PERMISSIONS, params=query)).json()
        assert list(page) == ["object", "data", "has_more", "first_id", "last_id"]
        ids = [one["id"] for one in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        return [made.index(one["project_id"]) for one in page["data"]], page["has_more"]

    assert await listed() == ([3, 2, 1, 0], False)
    assert await listed(order="ascending", limit=3) == ([0, 1, 2], True)
    last = (await client.get(PERMISSIONS, params={"limit": 2})).json()["last_id"]
    assert await listed(after=last) == ([1, 0], False)
    assert await listed(after=last, order="ascending") == ([3], False)
    assert await listed(project_id=made[1]) == ([1], False)
    assert await listed(limit=0) == await listed(after="nothing") == ([], False)
    assert (await client.get(PERMISSIONS, params={"order": "asc"})).status_code == 400


@pytest.mark.parametrize("name", ["ft-AF1WoRqd3aJAHsqc9NY7iL8F", "ft:org%2Fbase:o::x", "ft:a/b:o::x"])
async def test_an_unknown_checkpoint_has_no_permissions(client: httpx.AsyncClient, name: str) -> None:
    path = f"/fine_tuning/checkpoints/{name}/permissions"
    assert (await client.get(path)).json() == {
        "object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None,
    }  # fmt: skip
    assert (await client.post(path, json={"project_ids": ["proj_x"]})).status_code == 404
    assert (await client.delete(f"{path}/cp_x")).status_code == 404


@pytest.mark.parametrize("project_ids", [["proj_nobody"], [], None, [1]])
async def test_only_projects_can_be_granted(client: httpx.AsyncClient, checkpoint: str, project_ids: Any) -> None:
    response = await client.post(PERMISSIONS, json={"project_ids": project_ids})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("project_ids")
