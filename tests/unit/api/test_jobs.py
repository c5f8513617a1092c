"""Fine-tuning jobs through HTTP, as their users see them; no worker runs here."""

from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.domain.job import Status
from service.domain.model import suffix_room
from service.installation.context import Context
from service.operations.keys import Caller
from service.recipes.catalogue import Catalogue
from tests.given.files_by_http import upload
from tests.given.jobs_by_http import JOBS, create, messages
from tests.given.stored_files import unneeded_files
from tests.given.stored_jobs import move, note_announcement


async def test_a_new_job_has_openais_keys_in_openais_order(client: httpx.AsyncClient, caller: Caller) -> None:
    file = (await upload(client))["id"]
    job = await create(client, training_file=file)
    assert list(job) == [
        "object", "id", "model", "created_at", "finished_at", "fine_tuned_model", "organization_id", "result_files",
        "status", "validation_file", "training_file", "hyperparameters", "trained_tokens", "error",
        "user_provided_suffix", "seed", "estimated_finish", "integrations", "metadata", "usage_metrics",
        "shared_with_openai", "eval_id", "method", "progress", "tuning",
        "api_key",
    ]  # fmt: skip
    assert job["api_key"] == {"id": caller.key_id, "name": "created at the first start"}
    assert job["status"] == "validating_files"
    assert job["organization_id"] == caller.organization_id
    assert job["error"] is None
    assert 0 <= job["seed"] < 2**31
    assert job["hyperparameters"] == dict.fromkeys(["n_epochs", "batch_size", "learning_rate_multiplier"], "auto")
    assert job["method"] == {"type": "supervised", "supervised": {"hyperparameters": job["hyperparameters"]}}
    assert job["tuning"]["type"] == "lora"
    assert job["progress"] == {
        "percent": 0.0, "step": 0, "total_steps": None, "seconds_remaining": None, "queue_position": None,
    }  # fmt: skip
    assert (await client.get(f"{JOBS}/{job['id']}")).json() == job
    assert await messages(client, job["id"]) == [f"Created fine-tuning job: {job['id']}"]


async def test_what_a_user_asks_for_is_what_the_job_says(client: httpx.AsyncClient) -> None:
    asked = {
        "suffix": "my-model_1",
        "seed": 42,
        "metadata": {"team": "a"},
        "integrations": [{"type": "wandb", "wandb": {"project": "p", "tags": ["t"]}}],
        "tuning": {"type": "prefix", "prefix": {"num_virtual_tokens": 8}},
    }
    job = await create(client, **asked)
    assert job["user_provided_suffix"] == "my-model_1"
    assert {name: job[name] for name in ("seed", "metadata", "integrations")} == {
        name: asked[name] for name in ("seed", "metadata", "integrations")
    }
    assert job["tuning"]["type"] == "prefix" and job["tuning"]["prefix"]["num_virtual_tokens"] == 8


async def test_a_tuning_that_edits_prompts_is_refused_for_plain_text(client: httpx.AsyncClient) -> None:
    body = {"model": "luthier-tiny", "training_file": (await upload(client))["id"], "tuning": {"type": "loreft"}}
    refused = await client.post(JOBS, json={**body, "method": {"type": "text"}})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "method_not_available", "tuning.type")
    assert "have none; use one of: bottleneck, " in error["message"]


async def test_a_number_is_an_integer_when_json_says_so(client: httpx.AsyncClient) -> None:
    assert (await create(client, seed=7.0, hyperparameters={"n_epochs": 2.0}))["seed"] == 7


async def test_the_methods_hyperparameters_win_over_the_deprecated_ones(client: httpx.AsyncClient) -> None:
    job = await create(
        client,
        hyperparameters={"n_epochs": 2, "batch_size": 4},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
    )
    assert job["hyperparameters"] == {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": "auto"}


async def test_settings_of_another_method_are_accepted_with_a_warning(client: httpx.AsyncClient) -> None:
    job = await create(client, method={"type": "supervised", "dpo": {"hyperparameters": {"beta": 0.1}}})
    events = (await client.get(f"{JOBS}/{job['id']}/events")).json()["data"]
    assert [event["level"] for event in events] == ["warn", "info"]
    assert "'method.dpo' was given" in events[0]["message"]


async def test_integrations_without_a_key_are_accepted_with_a_warning(client: httpx.AsyncClient) -> None:
    job = await create(client, integrations=[{"type": "wandb", "wandb": {"project": "p"}}])
    assert "no key for Weights & Biases" in (await messages(client, job["id"]))[1]


async def test_the_same_file_twice_is_accepted_with_a_warning(client: httpx.AsyncClient) -> None:
    file = (await upload(client))["id"]
    job = await create(client, training_file=file, validation_file=file)
    assert "The validation file is the training file" in (await messages(client, job["id"]))[1]


async def test_a_file_of_another_purpose_or_project_cannot_be_trained_on(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    good = (await upload(client))["id"]
    for wrong in [(await upload(client, purpose="batch"))["id"], (await upload(stranger))["id"], "file-nothing"]:
        for files in [{"training_file": wrong}, {"training_file": good, "validation_file": wrong}]:
            response = await client.post(JOBS, json={"model": "luthier-tiny", **files})
            param = "validation_file" if "validation_file" in files else "training_file"
            assert response.status_code == 400
            assert response.json()["error"]["param"] == param
            assert response.json()["error"]["message"].startswith(f"invalid {param}: {wrong}")
    assert (await client.get(JOBS)).json()["data"] == []


@pytest.mark.parametrize("status", ["validating_files", "queued", "running", "paused"])
async def test_a_job_is_cancelled_at_once(ctx: Context, client: httpx.AsyncClient, status: Status) -> None:
    id = (await create(client))["id"]
    await move(ctx, id, "validating_files", status=status)
    response = await client.post(f"{JOBS}/{id}/cancel", headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert response.json()["status"] == "cancelled"
    assert response.json()["error"] is None
    assert (await client.get(f"{JOBS}/{id}")).json() == response.json()
    assert (await messages(client, id))[-1] == "The job was cancelled"


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
async def test_a_finished_job_cannot_be_cancelled(ctx: Context, client: httpx.AsyncClient, status: Status) -> None:
    id = (await create(client))["id"]
    await move(ctx, id, "validating_files", status=status)
    response = await client.post(f"{JOBS}/{id}/cancel")
    assert response.status_code == 400  # 409 would be tried again by the SDKs
    assert response.json()["error"]["message"] == f"Job {id} cannot be cancelled: its status is '{status}'."


async def test_a_running_job_says_when_it_will_be_done(ctx: Context, client: httpx.AsyncClient) -> None:
    id = (await create(client))["id"]
    await move(
        ctx, id, "validating_files", status="running", step=25, total_steps=100, seconds_per_step=2.0, trained_tokens=7
    )
    job = (await client.get(f"{JOBS}/{id}")).json()
    assert job["progress"] == {
        "percent": 25.0, "step": 25, "total_steps": 100, "seconds_remaining": 150, "queue_position": None,
    }  # fmt: skip
    assert job["estimated_finish"] >= job["created_at"] + 150
    assert job["trained_tokens"] is None
    await note_announcement(ctx, job["model"], 40.0)
    assert (await client.get(f"{JOBS}/{id}")).json()["progress"]["seconds_remaining"] == 190  # with its announcement
    await move(ctx, id, "running", status="succeeded", step=100)
    job = (await client.get(f"{JOBS}/{id}")).json()
    assert (job["estimated_finish"], job["trained_tokens"], job["progress"]["percent"]) == (None, 7, 100.0)


async def test_a_queued_job_knows_how_many_are_before_it(ctx: Context, client: httpx.AsyncClient) -> None:
    made = [(await create(client))["id"] for _ in range(3)]
    for id in made:
        await move(ctx, id, "validating_files", status="queued")
    page = (await client.get(JOBS)).json()["data"]
    assert [job["progress"]["queue_position"] for job in page] == [2, 1, 0]


async def test_jobs_are_listed_newest_first_even_within_one_second(client: httpx.AsyncClient) -> None:
    file = (await upload(client))["id"]
    made = [(await create(client, training_file=file))["id"] for _ in range(5)]
    first = (await client.get(JOBS, params={"limit": 3})).json()
    second = (await client.get(JOBS, params={"limit": 3, "after": first["data"][-1]["id"]})).json()
    assert [job["id"] for job in first["data"] + second["data"]] == made[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert list(first) == ["object", "data", "has_more"]


@pytest.mark.parametrize("query", [{"limit": 0}, {"after": "nothing"}])
async def test_a_page_of_nothing_is_empty(client: httpx.AsyncClient, query: dict[str, Any]) -> None:
    id = (await create(client))["id"]
    for path in [JOBS, f"{JOBS}/{id}/events", f"{JOBS}/{id}/checkpoints"]:
        page = (await client.get(path, params=query)).json()
        assert (page["data"], page["has_more"]) == ([], False)


async def test_a_suffix_that_no_name_has_room_for_is_refused_when_the_job_is_created(
    app: FastAPI, ctx: Context, client: httpx.AsyncClient
) -> None:
    base = next(iter(ctx.catalogue.bases.values())).model_copy(update={"id": "b" * 160, "aliases": ()})
    app.state.context = replace(ctx, catalogue=Catalogue([base]))
    body = {"model": base.id, "training_file": (await upload(client))["id"]}
    refused = await client.post(JOBS, json={**body, "suffix": "s" * 64})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "suffix"
    room = suffix_room(base.id, ctx.settings.organization)
    assert 0 < room < 64 and f"room for {room} only" in refused.json()["error"]["message"]
    assert (await client.post(JOBS, json={**body, "suffix": "s" * room})).status_code == 200


async def test_jobs_are_found_by_their_metadata(client: httpx.AsyncClient) -> None:
    file = (await upload(client))["id"]
    made = [
        (await create(client, training_file=file, metadata=metadata))["id"]
        for metadata in [{"team": "a", "run": "1"}, {"team": "b"}, None, {"team": "a", "run": "2"}]
    ]

    async def found(**query: Any) -> list[int]:
        return [made.index(job["id"]) for job in (await client.get(JOBS, params=query)).json()["data"]]

    assert await found(**{"metadata[team]": "a"}) == [3, 0]
    assert await found(**{"metadata[team]": "a", "metadata[run]": "1"}) == [0]
    assert await found(**{"metadata[team]": "a", "limit": 1}) == [3]
    assert await found(**{"metadata[team]": "a", "after": made[3]}) == [0]
    assert await found(metadata="null") == [2]


@pytest.mark.parametrize(
    ("field", "value"), [('a"b', "1"), ("$.team", "a"), ("a.b[0]", 'say "x"'), ("größe", "%"), ("0", "'"), (":k", "\\")]
)
async def test_metadata_may_have_any_characters(client: httpx.AsyncClient, field: str, value: str) -> None:
    file = (await upload(client))["id"]
    made = await create(client, training_file=file, metadata={field: value})
    await create(client, training_file=file, metadata={"team": "a", field: f"{value}x"})
    found = (await client.get(JOBS, params={f"metadata[{field}]": value})).json()["data"]
    assert [job["id"] for job in found] == [made["id"]]


async def test_events_are_paged_without_gaps(ctx: Context, client: httpx.AsyncClient) -> None:
    file = (await upload(client))["id"]
    id = (await create(client, training_file=file, validation_file=file))["id"]
    await client.post(f"{JOBS}/{id}/cancel")
    seen: list[dict[str, Any]] = []
    after = None
    while True:
        query = {"limit": 1} if after is None else {"limit": 1, "after": after}
        page = (await client.get(f"{JOBS}/{id}/events", params=query)).json()
        seen += page["data"]
        after = page["data"][-1]["id"]
        if not page["has_more"]:
            break
    assert [event["message"] for event in seen] == (await messages(client, id))[::-1]
    assert list(seen[0]) == ["object", "id", "created_at", "level", "message", "type", "data"]


async def test_another_projects_job_is_not_there(client: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    id = (await create(client))["id"]
    answers = [
        await stranger.get(f"{JOBS}/{id}"),
        await stranger.post(f"{JOBS}/{id}/cancel"),
        await stranger.post(f"{JOBS}/{id}/pause"),
        await stranger.post(f"{JOBS}/{id}/resume"),
        await stranger.get(f"{JOBS}/{id}/events"),
        await stranger.get(f"{JOBS}/{id}/checkpoints"),
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert (await stranger.get(JOBS)).json()["data"] == []
    assert (await client.get(f"{JOBS}/{id}")).json()["status"] == "validating_files"


@pytest.mark.parametrize("status", ["validating_files", "queued"])
@pytest.mark.parametrize("kind", ["training", "validation"])
async def test_a_waiting_job_fails_when_its_file_is_deleted(
    ctx: Context, client: httpx.AsyncClient, status: Status, kind: str
) -> None:
    files = {f"{name}_file": (await upload(client))["id"] for name in ("training", "validation")}
    id = (await create(client, **files))["id"]
    await move(ctx, id, "validating_files", status=status)
    await client.delete(f"/files/{files[f'{kind}_file']}")
    job = (await client.get(f"{JOBS}/{id}")).json()
    assert job["status"] == "failed"
    assert job["error"] == {
        "code": f"deleted_{kind}_file",
        "message": f"The job failed because the {kind} file was deleted",
        "param": f"{kind}_file",
    }
    assert (await messages(client, id))[-1] == job["error"]["message"]


@pytest.mark.parametrize("status", ["running", "paused", "queued"])
async def test_a_job_that_has_started_goes_on_when_its_file_is_deleted(
    ctx: Context, client: httpx.AsyncClient, status: Status
) -> None:
    file = (await upload(client))["id"]
    id = (await create(client, training_file=file))["id"]
    await move(ctx, id, "validating_files", status=status, started_at=1)
    await client.delete(f"/files/{file}")
    assert (await client.get(f"{JOBS}/{id}")).json()["status"] == status
    assert file not in await unneeded_files(ctx)
