"""Every list is read to its end, also by those who delete what they have read, and though rows go by themselves."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from service.api.openapi import document
from service.installation.context import Context
from service.operations import chores, keys
from service.operations.keys import Caller
from service.settings.settings import Settings
from tests.given.files_by_http import upload
from tests.given.jobs_by_http import JOBS, create
from tests.given.listed_rows import (
    add_import,
    age_removed_rows,
    list_final_checkpoint,
    remove_imports_beyond,
)
from tests.given.stored_models import add_model, list_as_checkpoint

COUNT = 5
CHECKPOINT = "ft:luthier-tiny:luthier:x:BBBBBBBB:ckpt-step-10"
PERMISSIONS = f"/fine_tuning/checkpoints/{CHECKPOINT}/permissions"
Make = Callable[[Context, httpx.AsyncClient, Caller], Awaitable[None]]
KEPT = {  # lists from which no request removes anything
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events",
    "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
    "/v1/model_aliases/{name}/history",
    "/v1/model_imports",
    "/v1/api_keys",
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Endpoints may be on loopback."""
    return Settings(data_dir=tmp_path / "data", engine_urls="http://127.0.0.1:1", webhook_private=True)


async def _files(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> None:
    for _ in range(COUNT):
        await upload(client)


async def _checks(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> None:
    body = {"model": "luthier-tiny", "training_file": (await upload(client))["id"]}
    for _ in range(COUNT):
        assert (await client.post("/fine_tuning/checks", json=body)).status_code == 200


async def _aliases(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> None:
    for number in range(COUNT):
        body = {"name": f"alias{number}", "model": "luthier-tiny"}
        assert (await client.post("/model_aliases", json=body)).status_code == 200


async def _endpoints(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> None:
    for number in range(COUNT):
        body = {"name": f"hook{number}", "url": "http://127.0.0.1:1/", "event_types": ["fine_tuning.job.succeeded"]}
        assert (await client.post("/webhook_endpoints", json=body)).status_code == 200


async def _permissions(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> None:
    await add_model(ctx, caller, (await create(client))["id"], CHECKPOINT)
    ids = [await keys.create_project(ctx, f"project {number}") for number in range(COUNT)]
    assert (await client.post(PERMISSIONS, json={"project_ids": ids})).status_code == 200


DELETABLE: list[tuple[str, str, dict[str, str], Make]] = [  # the route, the list, its order, what makes its rows
    ("/v1/files", "/files", {}, _files),
    ("/v1/files", "/files", {"order": "asc"}, _files),
    ("/v1/fine_tuning/checks", "/fine_tuning/checks", {}, _checks),
    ("/v1/model_aliases", "/model_aliases", {}, _aliases),
    ("/v1/webhook_endpoints", "/webhook_endpoints", {}, _endpoints),
    ("/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions", PERMISSIONS, {}, _permissions),
    (
        "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
        PERMISSIONS,
        {"order": "ascending"},
        _permissions,
    ),
]


def test_every_list_with_pages_is_here() -> None:
    paged = {
        path
        for path, methods in document()["paths"].items()
        if any(parameter["name"] == "after" for parameter in methods.get("get", {}).get("parameters", ()))
    }
    assert paged == KEPT | {route for route, *_ in DELETABLE}


@pytest.mark.parametrize("route, path, order, make", DELETABLE)
@pytest.mark.parametrize("limit", [1, 2])
async def test_a_list_whose_rows_are_deleted_page_by_page_is_read_to_its_end(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, route: str, path: str, order: Any, make: Make, limit: int
) -> None:
    await make(ctx, client, caller)
    before = await names(client, path, limit=100, **order)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": limit, **order}
    while True:
        page = (await client.get(path, params=query)).json()
        found = [name_of(row) for row in page["data"]]
        seen += found
        for name in found:
            assert (await client.delete(f"{path}/{name}")).status_code == 200
        if not page["has_more"]:
            break
        query["after"] = found[-1]
    assert seen == before and len(seen) >= COUNT
    assert await names(client, path, limit=100) == []


async def test_permissions_are_revoked_in_a_loop_over_openais_list(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, key: str
) -> None:
    await _permissions(ctx, client, caller)
    http = httpx.AsyncClient(transport=client._transport)
    sdk = AsyncOpenAI(api_key=key, base_url="http://luthier/v1", http_client=http)
    permissions = sdk.fine_tuning.checkpoints.permissions
    async for one in permissions.list(CHECKPOINT, limit=2):
        await permissions.delete(one.id, fine_tuned_model_checkpoint=CHECKPOINT)
    assert await names(client, PERMISSIONS) == []


async def test_a_row_that_is_deleted_twice_or_is_another_owners_is_no_cursor(
    ctx: Context, client: httpx.AsyncClient, stranger: httpx.AsyncClient, caller: Caller
) -> None:
    await _aliases(ctx, client, caller)
    body = {"name": "theirs", "model": "luthier-tiny"}
    assert (await stranger.post("/model_aliases", json=body)).status_code == 200
    assert (await client.delete("/model_aliases/alias4")).status_code == 200
    assert (await client.delete("/model_aliases/alias4")).status_code == 404
    assert await names(client, "/model_aliases", after="alias4", limit=2) == ["alias3", "alias2"]
    assert await names(stranger, "/model_aliases", after="alias4") == []


async def test_a_name_that_was_given_again_stands_where_it_is_now(
    ctx: Context, client: httpx.AsyncClient, caller: Caller
) -> None:
    await _aliases(ctx, client, caller)
    for place in (["alias0"], ["alias4", "alias3", "alias2", "alias0"]):
        assert (await client.delete("/model_aliases/alias1")).status_code == 200
        assert await names(client, "/model_aliases", after="alias1") == place
        body = {"name": "alias1", "model": "luthier-tiny"}
        assert (await client.post("/model_aliases", json=body)).status_code == 200
        assert await names(client, "/model_aliases", after="alias1") == ["alias4", "alias3", "alias2", "alias0"]


async def test_an_import_that_is_not_kept_any_more_is_still_a_cursor(
    ctx: Context, client: httpx.AsyncClient, caller: Caller
) -> None:
    for number in range(COUNT):
        await add_import(ctx, caller, f"modelimport-{number}", "succeeded" if number % 2 == 0 else "failed")
    await remove_imports_beyond(ctx, caller, 1)
    assert await names(client, "/model_imports") == ["modelimport-4", "modelimport-2", "modelimport-0"]
    assert await names(client, "/model_imports", after="modelimport-3") == ["modelimport-2", "modelimport-0"]


async def test_a_checkpoint_that_gave_way_to_the_jobs_result_is_still_a_cursor(
    ctx: Context, client: httpx.AsyncClient, caller: Caller
) -> None:
    job = (await create(client))["id"]
    for step in range(1, 4):
        await list_as_checkpoint(ctx, job, await add_model(ctx, caller, job, f"{CHECKPOINT}{step}", step=step), step)
    assert (await client.delete(f"/models/{CHECKPOINT}2")).status_code == 200
    await list_final_checkpoint(ctx, job, await add_model(ctx, caller, job, f"{CHECKPOINT}f", kind="final"), 2)
    path = f"{JOBS}/{job}/checkpoints"
    assert await names(client, path) == ["ftckpt_final_2", "ftckpt_3", "ftckpt_1"]
    assert await names(client, path, after="ftckpt_2") == ["ftckpt_1"]


async def test_places_of_removed_rows_are_forgotten_after_a_week(
    ctx: Context, client: httpx.AsyncClient, caller: Caller
) -> None:
    await _aliases(ctx, client, caller)
    for name in ("alias4", "alias3"):
        await client.delete(f"/model_aliases/{name}")
    await chores.sweep(ctx)
    assert await names(client, "/model_aliases", after="alias3") == ["alias2", "alias1", "alias0"]
    await age_removed_rows(ctx)
    await chores.sweep(ctx)
    assert await names(client, "/model_aliases", after="alias3") == []


def name_of(row: dict[str, Any]) -> str:
    """What `after` names of it."""
    return str(row["id"] if "id" in row else row["name"])


async def names(client: httpx.AsyncClient, path: str, **query: Any) -> list[str]:
    response = await client.get(path, params=query)
    assert response.status_code == 200, response.text
    return [name_of(row) for row in response.json()["data"]]


@pytest.mark.parametrize(
    ("query", "name"),
    [("limit=1&limit=2", "limit"), ("metadata[a]=1&metadata%5Ba%5D=1", "metadata[a]"), ("x=&x=", "x")],
)
async def test_a_query_with_two_values_for_one_name_is_refused(
    client: httpx.AsyncClient, query: str, name: str
) -> None:
    response = await client.get(f"{JOBS}?{query}")
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["message"], error["param"]) == (
        f"'{name}' is in the query of your request twice. Send it once.",
        name,
    )
    assert (await client.get(f"{JOBS}?limit=1&metadata[a]=1&metadata[b]=1&include[]=x&include[]=y")).status_code == 200
