"""Models through HTTP: bases for everybody, tuned ones for their project."""

from dataclasses import replace

import httpx
import pytest
from sqlalchemy import event

from service.domain.errors import ModelNotFound
from service.gateway.names import ResolvedModel
from service.installation.context import Context
from service.operations.keys import Caller
from service.operations.models import resolve_for_inference
from tests.given.jobs_by_http import JOBS, create
from tests.given.stored_models import add_model, find_model, list_as_checkpoint

FINAL = "ft:luthier-tiny:luthier:x:AAAAAAAA"
STEP = "ft:luthier-tiny:luthier:x:BBBBBBBB:ckpt-step-10"


@pytest.fixture
async def job_id(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> str:
    """A job that has published a checkpoint and its final model."""
    id = str((await create(client))["id"])
    await add_model(ctx, caller, id, STEP, step=10)
    await list_as_checkpoint(ctx, id, STEP, 10)
    await add_model(ctx, caller, id, FINAL, step=20, kind="final")
    await list_as_checkpoint(ctx, id, FINAL, 20)
    return id


async def test_a_list_shows_the_bases_and_then_ones_own(client: httpx.AsyncClient, job_id: str) -> None:
    found = (await client.get("/models")).json()
    assert [model["id"] for model in found["data"]] == ["luthier-tiny", STEP, FINAL]
    fields = ["id", "object", "created", "owned_by", "shutdown_date", "kind", "task", "imported"]
    assert list(found["data"][0]) == fields
    assert [model["owned_by"] for model in found["data"]] == ["luthier"] * 3


@pytest.mark.parametrize("spelling", [FINAL, FINAL.replace(":", "%3A")])
async def test_a_tuned_model_is_found_by_its_name(client: httpx.AsyncClient, job_id: str, spelling: str) -> None:
    assert (await client.get(f"/models/{spelling}")).json()["id"] == FINAL


async def test_checkpoints_are_listed_newest_first(client: httpx.AsyncClient, job_id: str) -> None:
    page = (await client.get(f"{JOBS}/{job_id}/checkpoints")).json()
    assert [item["fine_tuned_model_checkpoint"] for item in page["data"]] == [FINAL, STEP]
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("ftckpt_20", "ftckpt_10", False)
    assert list(page["data"][0]) == [
        "object", "id", "created_at", "fine_tuned_model_checkpoint", "fine_tuning_job_id", "metrics", "step_number",
    ]  # fmt: skip
    assert '"metrics":{"step":20,"type":"supervised"}' in (await client.get(f"{JOBS}/{job_id}/checkpoints")).text
    first = (await client.get(f"{JOBS}/{job_id}/checkpoints", params={"limit": 1})).json()
    assert first["has_more"] is True


async def test_a_deleted_model_is_gone_for_ever(ctx: Context, client: httpx.AsyncClient, job_id: str) -> None:
    assert (await client.delete(f"/models/{FINAL}")).json() == {"id": FINAL, "object": "model", "deleted": True}
    assert (await client.get(f"/models/{FINAL}")).status_code == 404
    assert (await client.delete(f"/models/{FINAL}")).status_code == 404
    left = (await client.get(f"{JOBS}/{job_id}/checkpoints")).json()["data"]
    assert [item["fine_tuned_model_checkpoint"] for item in left] == [STEP]
    assert await find_model(ctx, FINAL) is not None  # the name stays taken


async def test_a_base_cannot_be_deleted(client: httpx.AsyncClient) -> None:
    response = await client.delete("/models/luthier-tiny")
    assert response.status_code == 403
    assert "base model" in response.json()["error"]["message"]
    assert (await client.get("/models/luthier-tiny")).status_code == 200


@pytest.mark.parametrize("name", ["fake", "org%2Fname", "ft:luthier-tiny:luthier::x", ""])
async def test_an_unknown_model_is_a_404(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"/models/{name}")
    assert response.status_code == 404
    error = response.json()["error"]
    if name:
        assert (error["code"], error["param"]) == ("model_not_found", "model")


async def test_a_404_names_what_this_caller_may_call(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, job_id: str
) -> None:
    ours = (await client.get("/models/luthier-tinny")).json()["error"]["message"]
    assert ours.endswith(f"You may call: luthier-tiny, {FINAL}, {STEP}.")
    theirs = (await stranger.get(f"/models/{FINAL}")).json()["error"]["message"]
    assert theirs.endswith("You may call: luthier-tiny.")
    question = {"model": "gpt-4o", "messages": [{"role": "user", "content": "?"}]}
    assert "You may call: luthier-tiny, " in (await client.post("/chat/completions", json=question)).text


async def test_a_404_names_a_few_of_many_the_nearest_first(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, job_id: str
) -> None:
    for number in range(12):
        await add_model(ctx, caller, job_id, f"ft:luthier-tiny:luthier:many:AAAAAA{number:02}")
    message = (await client.get("/models/ft:luthier-tiny:luthier:many:AAAAAA0")).json()["error"]["message"]
    named = message.partition("You may call: ")[2]
    assert named.startswith("ft:luthier-tiny:luthier:many:AAAAAA")  # nearest first
    assert named.count("ft:") == 9 and "luthier-tiny," in named
    assert named.endswith(" and 5 more (GET /v1/models).")


async def test_another_projects_model_is_not_there(stranger: httpx.AsyncClient, job_id: str) -> None:
    assert (await stranger.get(f"/models/{FINAL}")).status_code == 404
    assert (await stranger.delete(f"/models/{FINAL}")).status_code == 404
    assert [model["id"] for model in (await stranger.get("/models")).json()["data"]] == ["luthier-tiny"]


async def test_names_become_what_engines_know(ctx: Context, caller: Caller, job_id: str) -> None:
    serving = ctx.catalogue.bases["luthier-tiny"].serving
    assert await resolve_for_inference(ctx, caller, "luthier-tiny") == ResolvedModel(
        "luthier-tiny", "luthier-tiny", None, serving, "generate"
    )
    assert await resolve_for_inference(ctx, caller, STEP) == ResolvedModel(
        STEP, "luthier-tiny", "lora", serving, "generate"
    )
    stranger = replace(caller, project_id="proj_other")
    with pytest.raises(ModelNotFound):
        await resolve_for_inference(ctx, stranger, STEP)


async def test_a_name_is_read_again_only_after_a_commit(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, job_id: str
) -> None:
    """Counted: with SQLite the second request asks the database nothing; PostgreSQL is always asked."""
    reads: list[object] = []
    event.listen(ctx.database.engine.sync_engine, "begin", reads.append)

    async def asked() -> int:
        reads.clear()
        await resolve_for_inference(ctx, caller, STEP)
        return len(reads)

    again = 0 if ctx.database.last_commit() else 1
    assert [await asked() for _ in range(3)] == [1, again, again]
    await create(client)
    assert [await asked() for _ in range(2)] == [1, again]
    await client.delete(f"/models/{STEP}")
    with pytest.raises(ModelNotFound):
        await asked()
