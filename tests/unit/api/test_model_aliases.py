"""Model aliases through HTTP: moved, shared between two models, resolved for requests and jobs, kept from deletion."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.app import create_app
from service.domain.errors import InvalidRequest
from service.domain.model_alias import Candidate, ModelAlias, choose
from service.installation.context import Context
from service.installation.create import create_context
from service.operations import aliases, keys
from service.operations.keys import Caller
from service.settings.settings import Settings
from tests.conftest import ClientOf
from tests.given.jobs_by_http import JOBS, create, listed
from tests.given.moving_alias import ALIAS, ask, ask_during_moves, names_itself
from tests.given.scrapes import scrape
from tests.given.scripted_engine import ScriptedEngine
from tests.given.stored_models import add_model, checkpoint_names, find_model, list_as_checkpoint, prune_checkpoints

OLD = "ft:luthier-tiny:luthier:x:AAAAAAAA"
NEW = "ft:luthier-tiny:luthier:x:BBBBBBBB"
PATH = f"/model_aliases/{ALIAS}"


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    engine.script = names_itself
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url, project_aliases=3)


@pytest.fixture
async def job_id(ctx: Context, client: httpx.AsyncClient, caller: Caller) -> str:
    """The job of the two models."""
    job = await create(client)
    for name in (OLD, NEW):
        await add_model(ctx, caller, job["id"], name, kind="final")
    return str(job["id"])


@pytest.fixture
async def alias(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    return await sent(client, "/model_aliases", name=ALIAS, model=OLD)


async def sent(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def refused(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_an_alias_is_moved_and_moved_back_and_remembers_by_whom(
    client: httpx.AsyncClient, caller: Caller, alias: dict[str, Any]
) -> None:
    assert list(alias) == ["id", "object", "created_at", "updated_at", "model", "candidate", "previous_model"]
    assert (alias["id"], alias["object"], alias["model"]) == (ALIAS, "model_alias", OLD)
    promoted = await sent(client, f"{PATH}/promote", model=NEW)
    assert (promoted["model"], promoted["previous_model"]) == (NEW, OLD)
    assert (await client.post(f"{PATH}/rollback")).json()["model"] == OLD
    assert (await sent(client, f"{PATH}/rollback"))["model"] == NEW  # a rollback is a move, and can be taken back
    again = await refused(client, f"{PATH}/rollback", current_model=OLD)  # sent a second time
    assert (again["param"], (await client.get(PATH)).json()["model"]) == ("current_model", NEW)

    assert (await client.delete(PATH)).json() == {"id": ALIAS, "object": "model_alias", "deleted": True}
    assert (await client.get(PATH)).status_code == 404
    history = (await client.get(f"{PATH}/history", params={"limit": 4})).json()
    assert [change["action"] for change in history["data"]] == ["deleted", "rolled_back", "rolled_back", "promoted"]
    older = (await client.get(f"{PATH}/history", params={"after": history["last_id"]})).json()
    assert [(change["action"], change["model"]) for change in older["data"]] == [("created", OLD)]
    assert older["data"][0]["api_key"] == {"id": caller.key_id, "name": "created at the first start"}
    assert (await client.get("/model_aliases/nobody/history")).status_code == 404


async def test_what_changes_nothing_is_not_recorded(client: httpx.AsyncClient, alias: dict[str, Any]) -> None:
    await sent(client, f"{PATH}/promote", model=OLD)
    await sent(client, PATH)
    assert len((await client.get(f"{PATH}/history")).json()["data"]) == 1
    assert (await refused(client, f"{PATH}/rollback"))["message"].endswith("there is nothing to return to.")
    assert (await refused(client, f"{PATH}/promote"))["param"] == "model"


async def test_a_candidate_is_promoted_or_taken_back(client: httpx.AsyncClient, alias: dict[str, Any]) -> None:
    canary = await sent(client, PATH, candidate={"model": NEW, "weight": 0.1})
    assert (canary["model"], canary["candidate"]) == (OLD, {"model": NEW, "weight": 0.1})
    ended = await sent(client, f"{PATH}/rollback")
    assert (ended["model"], ended["candidate"], ended["previous_model"]) == (OLD, None, None)
    await sent(client, PATH, candidate={"model": NEW, "weight": 0.9})
    promoted = await sent(client, f"{PATH}/promote")
    assert (promoted["model"], promoted["candidate"], promoted["previous_model"]) == (NEW, None, OLD)
    await sent(client, PATH, candidate={"model": OLD, "weight": 0.5})
    assert (await sent(client, PATH, candidate=None))["candidate"] is None
    assert (await refused(client, PATH, candidate={"model": NEW, "weight": 0.5}))["param"] == "candidate.model"
    assert (await refused(client, PATH, candidate={"model": OLD, "weight": 1}))["param"] == "candidate.weight"


@pytest.mark.parametrize(
    ("name", "model", "param", "said"),
    [
        ("luthier-tiny", OLD, "name", "is a base of this installation"),
        ("gpt-4o-mini", OLD, "name", "or an alias of one"),
        (OLD, OLD, "name", "tuned model's name"),
        ("a/b", OLD, "name", "letters, digits"),
        ("x" * 65, OLD, "name", "at most 64"),
        (ALIAS, OLD, "name", "already"),
        ("other", "ft:luthier-tiny:luthier:x:CCCCCCCC", "model", "does not exist"),
        ("other", ALIAS, "model", "is a model alias itself"),
    ],
)
async def test_what_cannot_be_an_alias_is_refused(
    ctx: Context, client: httpx.AsyncClient, alias: dict[str, Any], name: str, model: str, param: str, said: str
) -> None:
    await aliases.set_alias(ctx, "gpt-4o-mini", "luthier-tiny")
    error = await refused(client, "/model_aliases", name=name, model=model)
    assert error["param"] == param and said in error["message"]


async def test_a_base_gets_no_alias_that_a_project_uses(ctx: Context, alias: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="a project's model alias"):
        await aliases.set_alias(ctx, ALIAS, "luthier-tiny")


async def test_a_project_has_a_quota_and_sees_its_own_only(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, alias: dict[str, Any]
) -> None:
    await sent(client, "/model_aliases", name="base", model="luthier-tiny")
    await sent(client, "/model_aliases", name="last", model="luthier-tiny")
    over = await client.post("/model_aliases", json={"name": "more", "model": OLD})
    assert (over.status_code, over.json()["error"]["code"]) == (429, "insufficient_quota")
    page = (await client.get("/model_aliases", params={"limit": 2})).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (["last", "base"], True)
    rest = (await client.get("/model_aliases", params={"after": page["last_id"]})).json()
    assert [one["id"] for one in rest["data"]] == [ALIAS]
    shown = [model["id"] for model in (await client.get("/models")).json()["data"]]
    assert shown == ["luthier-tiny", OLD, NEW, "base", "last", ALIAS]
    assert (await client.get(f"/models/{ALIAS}")).json()["id"] == ALIAS

    assert (await stranger.get("/model_aliases")).json()["data"] == []
    for method, path in (("GET", PATH), ("POST", f"{PATH}/promote"), ("DELETE", PATH), ("GET", f"{PATH}/history")):
        assert (await stranger.request(method, path)).status_code == 404, path
    assert (await ask(stranger)).status_code == 404
    await sent(stranger, "/model_aliases", name=ALIAS, model="luthier-tiny")  # names are a project's own


async def test_a_model_that_an_alias_holds_is_not_deleted(
    client: httpx.AsyncClient, alias: dict[str, Any], ctx: Context, job_id: str
) -> None:
    await sent(client, PATH, candidate={"model": NEW, "weight": 0.5})
    for model in (OLD, NEW):
        response = await client.delete(f"/models/{model}")
        assert response.status_code == 400 and f"'{ALIAS}'" in response.json()["error"]["message"]
        await list_as_checkpoint(ctx, job_id, model, 1 if model == OLD else 2)
    await prune_checkpoints(ctx, job_id, kept=0)
    assert len(await checkpoint_names(ctx, job_id)) == 2
    assert (await client.delete(f"/models/{ALIAS}")).status_code == 403
    await sent(client, f"{PATH}/promote", model=NEW)
    assert (await client.delete(f"/models/{OLD}")).status_code == 200
    assert (await refused(client, f"{PATH}/rollback"))["code"] == "model_not_found"
    await client.delete(PATH)
    await prune_checkpoints(ctx, job_id, kept=0)
    pruned = await find_model(ctx, NEW)
    assert pruned is not None and pruned.deleted_at is not None


async def test_a_job_continues_what_the_alias_stood_for_at_its_creation(
    client: httpx.AsyncClient, alias: dict[str, Any]
) -> None:
    job = await create(client, model=ALIAS)
    await sent(client, f"{PATH}/promote", model=NEW)
    assert (await client.get(f"{JOBS}/{job['id']}")).json()["model"] == OLD
    recorded = [event["data"] for event in await listed(client, job["id"]) if event["data"]]
    assert recorded[0] == {"alias": ALIAS, "model": OLD}


async def test_every_process_serves_the_new_model_from_the_next_request_on(
    ctx: Context, client: httpx.AsyncClient, key: str, alias: dict[str, Any]
) -> None:
    other = create_context(ctx.settings)
    transport = httpx.ASGITransport(create_app(other))
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://other/v1", headers=headers) as second:
        for model in (NEW, OLD, NEW):
            await sent(client, f"{PATH}/promote", model=model)
            assert (await ask(second)).json()["model"] == model
    await other.close()


async def test_a_granted_model_that_has_gone_is_said_with_the_alias(
    ctx: Context, client: httpx.AsyncClient, stranger: httpx.AsyncClient, stranger_key: str, job_id: str
) -> None:
    other = (await keys.authenticate(ctx, stranger_key)).project_id
    granted = await sent(client, f"/fine_tuning/checkpoints/{OLD}/permissions", project_ids=[other])
    await sent(stranger, "/model_aliases", name=ALIAS, model=OLD)
    assert (await ask(stranger)).json()["model"] == OLD
    await client.delete(f"/fine_tuning/checkpoints/{OLD}/permissions/{granted['data'][0]['id']}")
    response = await ask(stranger)
    assert response.status_code == 404 and f"alias '{ALIAS}'" in response.json()["error"]["message"]


async def test_anothers_alias_keeps_an_old_checkpoint_but_not_its_owner_from_deleting_it(
    ctx: Context, client: httpx.AsyncClient, stranger: httpx.AsyncClient, stranger_key: str, job_id: str
) -> None:
    other = (await keys.authenticate(ctx, stranger_key)).project_id
    for step, model in enumerate((OLD, NEW), 1):
        await list_as_checkpoint(ctx, job_id, model, step)
        granted = await sent(client, f"/fine_tuning/checkpoints/{model}/permissions", project_ids=[other])
        await sent(stranger, "/model_aliases", name=f"alias{step}", model=model)
    await client.delete(f"/fine_tuning/checkpoints/{NEW}/permissions/{granted['data'][0]['id']}")
    await prune_checkpoints(ctx, job_id, kept=0)
    assert await checkpoint_names(ctx, job_id) == [OLD]  # whoever may not call a model any more keeps nothing
    assert (await client.delete(f"/models/{OLD}")).status_code == 200
    response = await ask(stranger, model="alias1")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "model_not_found")
    assert error["message"].startswith(f"The model alias 'alias1' stands for '{OLD}', which is gone, or")


async def test_metrics_count_what_an_alias_and_its_candidate_served(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, client_of: ClientOf, alias: dict[str, Any]
) -> None:
    await sent(client, PATH, candidate={"model": NEW, "weight": 0.5})
    named = Counter([(await ask(client, f"user {number}")).json()["model"] for number in range(40)])
    page = await scrape(client_of(await keys.create_key(ctx, "operators", "admin")))
    labels = {"project": caller.project_id, "alias": ALIAS, "outcome": "answered"}
    assert page.value("luthier_alias_requests_total", role="model", **labels) == named[OLD] > 0
    assert page.value("luthier_alias_requests_total", role="candidate", **labels) == named[NEW] > 0


async def test_an_end_user_keeps_the_model(client: httpx.AsyncClient, alias: dict[str, Any]) -> None:
    await sent(client, PATH, candidate={"model": NEW, "weight": 0.5})
    first = [(await ask(client, f"user {number}")).json()["model"] for number in range(20)]
    await sent(client, PATH, candidate={"model": NEW, "weight": 0.7})
    later = [(await ask(client, f"user {number}")).json()["model"] for number in range(20)]
    assert all(after == NEW for before, after in zip(first, later, strict=True) if before == NEW)
    chat = {"model": ALIAS, "messages": [{"role": "user", "content": "Hi"}], "user": "someone"}
    both = [
        (await client.post("/chat/completions", json={**chat, "safety_identifier": f"user {number}"})).json()["model"]
        for number in range(20)
    ]
    assert both == later  # the one that OpenAI has replaced `user` by comes first


def test_the_split_is_the_weight_within_two_standard_deviations() -> None:
    for weight in (0.01, 0.1, 0.5, 0.9):
        alias = ModelAlias(ALIAS, "proj_1", OLD, Candidate(NEW, weight), None, 1, 1)
        chosen = Counter(choose(alias, f"user-{number}") for number in range(10_000))
        deviation = math.sqrt(10_000 * weight * (1 - weight))
        assert abs(chosen["candidate"] - 10_000 * weight) < 2 * deviation, weight
        drawn = Counter(choose(alias, None) for _ in range(10_000))
        assert abs(drawn["candidate"] - 10_000 * weight) < 6 * deviation, weight  # drawn again in each run


@pytest.mark.slow
async def test_requests_during_moves_are_each_served_by_one_model_and_none_fails(
    client: httpx.AsyncClient, engine: ScriptedEngine, alias: dict[str, Any]
) -> None:
    served = await ask_during_moves(client, engine, (OLD, NEW), requests=500, moves=25)
    assert served.statuses == {200: 500}
    assert served.by_engine == served.named and set(served.named) == {OLD, NEW}
    assert served.moves == 25
