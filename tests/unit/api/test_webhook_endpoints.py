"""Webhooks through the official SDK and a receiver on loopback: endpoints, signatures, events that are never lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.webhooks import FineTuningJobSucceededWebhookEvent

from service.domain.errors import JobError
from service.domain.webhook import EVENT_TYPES, GIVE_UP_SECONDS, pause_seconds
from service.installation.context import Context
from service.operations import checks, jobs, webhook_deliveries
from service.operations.check_work import CHECK, HeldCheck
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.operations.webhook_deliveries import Deliveries, claim, due_in
from service.settings.settings import Settings
from service.webhooks.sender import Sent
from service.work import claims
from tests.given.files_by_http import upload
from tests.given.receiver import Receiver, receiver
from tests.given.stored_jobs import a_model, a_result, add_job, claimed, expire, stored_events
from tests.given.webhooks import age_delivery, hurry, pending

ENDPOINTS = "/webhook_endpoints"
SUCCEEDED, CANCELLED = "fine_tuning.job.succeeded", "fine_tuning.job.cancelled"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data", engine_urls="http://127.0.0.1:1", webhook_private=True, project_webhook_endpoints=3
    )


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as found:
        yield found


@pytest.fixture
async def sdk(base_url: str, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        yield sdk


async def made(client: httpx.AsyncClient, url: str, *event_types: str) -> dict[str, Any]:
    body = {"name": "ours", "url": url, "event_types": event_types or EVENT_TYPES}
    response = await client.post(ENDPOINTS, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def deliver(ctx: Context) -> None:
    """Everything that is due now, once."""
    async with asyncio.TaskGroup() as sending, asyncio.timeout(60):
        await Deliveries(ctx).begin_due(sending)


async def ended(ctx: Context, caller: Caller) -> str:
    """A job that its user has cancelled."""
    job = await add_job(ctx, caller)
    await jobs.cancel(ctx, caller, job.id)
    return job.id


async def test_the_sdk_manages_endpoints_and_unwraps_what_they_receive(
    ctx: Context, caller: Caller, sdk: openai.AsyncOpenAI, hook: Receiver
) -> None:
    endpoint = await sdk.webhooks.create(name="ours", url=hook.url, event_types=[SUCCEEDED])  # type: ignore[list-item]
    secret = endpoint.signing_secret
    assert (endpoint.object, endpoint.event_types) == ("webhook_endpoint", [SUCCEEDED])
    found = await sdk.webhooks.retrieve(endpoint.id)
    assert not hasattr(found, "signing_secret") and str(found.signing_secret_hint).endswith(secret[-4:])
    assert [one.id async for one in sdk.webhooks.list(limit=1)] == [endpoint.id]
    assert (await sdk.webhooks.event_types.list()).data == list(EVENT_TYPES)
    changed = await sdk.webhooks.update(endpoint.id, name="another")
    assert (changed.name, changed.url) == ("another", hook.url)

    tried = await sdk.webhooks.test(endpoint.id, event_type=SUCCEEDED)
    assert (tried.object, tried.status_code, tried.success) == ("webhook_endpoint.test", 200, True)
    held = await claimed(ctx, caller)
    await held.finish(a_model(held), {"step": 1}, a_result(held))
    await deliver(ctx)
    for received in hook.received:
        event = sdk.webhooks.unwrap(received.body, received.headers, secret=secret)
        assert isinstance(event, FineTuningJobSucceededWebhookEvent) and event.object == "event"
    assert (event.data.id, len(hook.received)) == (held.job.id, 2)

    rotated = await sdk.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != secret
    await sdk.webhooks.test(endpoint.id, event_type=SUCCEEDED)
    for valid in (secret, rotated.signing_secret):
        sdk.webhooks.unwrap(hook.received[-1].body, hook.received[-1].headers, secret=valid)
    newest = (await sdk.webhooks.rotate_secret(endpoint.id)).signing_secret
    await sdk.webhooks.test(endpoint.id, event_type=SUCCEEDED)
    sdk.webhooks.unwrap(hook.received[-1].body, hook.received[-1].headers, secret=newest)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        sdk.webhooks.unwrap(hook.received[-1].body, hook.received[-1].headers, secret=rotated.signing_secret)
    assert (await sdk.webhooks.delete(endpoint.id)).object == "webhook_endpoint.deleted"
    with pytest.raises(openai.NotFoundError):
        await sdk.webhooks.retrieve(endpoint.id)


async def test_every_end_and_every_pause_of_a_job_is_told_to_those_who_asked(
    ctx: Context, client: httpx.AsyncClient, stranger: httpx.AsyncClient, caller: Caller, hook: Receiver
) -> None:
    await made(client, hook.url)
    async with receiver() as elsewhere, receiver() as choosy:
        await made(stranger, elsewhere.url)
        await made(client, choosy.url, CANCELLED)
        cancelled = await ended(ctx, caller)
        failing, pausing = await claimed(ctx, caller), await claimed(ctx, caller, "two")
        await failing.fail(JobError("training_diverged", "The loss is not a number."))
        await jobs.pause(ctx, caller, pausing.job.id)
        assert await pausing.pause(3)
        await deliver(ctx)
        told = {json.loads(one.body)["type"]: json.loads(one.body)["data"]["id"] for one in hook.received}
        assert told == {
            CANCELLED: cancelled,
            "fine_tuning.job.failed": failing.job.id,
            "fine_tuning.job.paused": pausing.job.id,
        }
        assert elsewhere.received == []
        (same,) = choosy.received
    first = next(one for one in hook.received if json.loads(one.body)["type"] == CANCELLED)
    assert json.loads(same.body) == json.loads(first.body) and same.id != first.id
    assert await pending(ctx) == []


async def test_the_end_of_a_check_is_told_and_a_receiver_that_never_takes_it_costs_no_job_its_events(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, hook: Receiver
) -> None:
    await made(client, hook.url)
    file = (await upload(client))["id"]
    done = await checks.create(ctx, caller, NewJob("luthier-tiny", file, seed=1))
    claim_of_check = await claims.claim(ctx, CHECK, "one", ["luthier-tiny"])
    assert claim_of_check is not None
    await HeldCheck(ctx, claim_of_check).fail(JobError("deleted_training_file", "It was deleted."))
    await deliver(ctx)
    (told,) = [json.loads(one.body) for one in hook.received]
    assert (told["type"], told["data"]) == ("fine_tuning.check.completed", {"id": done.id})

    await checks.create(ctx, caller, NewJob("luthier-tiny", file, seed=1))
    claim_of_check = await claims.claim(ctx, CHECK, "one", ["luthier-tiny"])
    assert claim_of_check is not None
    await HeldCheck(ctx, claim_of_check).fail(JobError("deleted_training_file", "It was deleted."))
    held = await claim(ctx, "one")
    assert held is not None
    await held.note(Sent(410))
    (endpoint,) = (await client.get(ENDPOINTS)).json()["data"]
    assert (endpoint["status"], "check.completed" in endpoint["disabled_reason"]) == ("disabled", True)
    assert await pending(ctx) == []


async def test_a_killed_process_delivers_nothing_twice_under_another_id(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, hook: Receiver
) -> None:
    """The lease of the killed one ends; the receiver, which had the event already, knows it by its id."""
    await made(client, hook.url)
    await ended(ctx, caller)
    killed = await claim(ctx, "killed")
    assert killed is not None and await claim(ctx, "another") is None
    await webhook_deliveries.Deliveries(ctx)._send(killed)  # and nothing is recorded
    for _ in range(5):  # processes that are killed again and again cost no delivery
        await expire(ctx, killed.subject.delivery.id)
        again = await claim(ctx, "also killed")
        assert again is not None
    await expire(ctx, killed.subject.delivery.id)
    await deliver(ctx)
    assert [one.id for one in hook.received] == [killed.subject.delivery.id] * 2
    assert hook.received[0].body == hook.received[1].body
    assert await pending(ctx) == []


async def test_a_delivery_that_fails_is_made_again_and_an_endpoint_that_stays_silent_is_disabled(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, hook: Receiver
) -> None:
    endpoint = await made(client, hook.url)
    path = f"{ENDPOINTS}/{endpoint['id']}"
    job_id = await ended(ctx, caller)
    hook.status = 500
    await deliver(ctx)
    assert (await due_in(ctx) or 0.0) > 0
    (delivery,) = await pending(ctx)
    assert delivery.attempts == 1
    await hurry(ctx, delivery.id)
    await deliver(ctx)
    assert (await client.get(path)).json()["status"] == "enabled"
    await age_delivery(ctx, delivery.id, GIVE_UP_SECONDS)
    await hurry(ctx, delivery.id)
    await deliver(ctx)
    assert len({one.id for one in hook.received}) == 1 and len(hook.received) == 3
    disabled = (await client.get(path)).json()
    assert disabled["status"] == "disabled" and "status 500" in disabled["disabled_reason"]
    told = (await stored_events(ctx, job_id))[-1]
    assert told.level == "warn" and endpoint["id"] in told.message and "is disabled" in told.message

    await ended(ctx, caller)  # nothing is kept for a disabled endpoint
    assert await pending(ctx) == []
    hook.status = 204
    assert (await client.post(path, json={"status": "enabled"})).json()["disabled_reason"] is None
    await ended(ctx, caller)
    await deliver(ctx)
    assert len(hook.received) == 4 and await pending(ctx) == []


async def test_an_endpoint_that_takes_other_events_stays_enabled_and_one_that_is_gone_does_not(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, hook: Receiver
) -> None:
    endpoint = await made(client, hook.url)
    await ended(ctx, caller)
    hook.status = 500
    await deliver(ctx)
    (stuck,) = await pending(ctx)
    hook.status = 200
    await ended(ctx, caller)
    await deliver(ctx)
    hook.status = 500
    await age_delivery(ctx, stuck.id, GIVE_UP_SECONDS)
    await hurry(ctx, stuck.id)
    await deliver(ctx)
    assert (await client.get(f"{ENDPOINTS}/{endpoint['id']}")).json()["status"] == "enabled"
    assert await pending(ctx) == []
    hook.status = 410
    await ended(ctx, caller)
    await deliver(ctx)
    assert (await client.get(f"{ENDPOINTS}/{endpoint['id']}")).json()["status"] == "disabled"


async def test_a_deleted_endpoint_receives_nothing_more(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, hook: Receiver
) -> None:
    endpoint = await made(client, hook.url)
    await ended(ctx, caller)
    held = await claim(ctx, "one")
    await client.delete(f"{ENDPOINTS}/{endpoint['id']}")
    assert held is not None
    await held.note(Sent(500))
    await hurry(ctx, held.subject.delivery.id)
    await deliver(ctx)
    assert hook.received == [] and await pending(ctx) == []


async def test_one_projects_slow_receiver_has_few_places(
    ctx: Context, client: httpx.AsyncClient, stranger: httpx.AsyncClient, caller: Caller, hook: Receiver
) -> None:
    await made(client, hook.url)
    hook.silent = True
    for _ in range(webhook_deliveries.AT_ONCE_OF_A_PROJECT + 2):
        await ended(ctx, caller)
    deliveries = Deliveries(ctx)
    async with asyncio.TaskGroup() as sending, asyncio.timeout(60):
        await deliveries.begin_due(sending)
        while len(hook.received) < webhook_deliveries.AT_ONCE_OF_A_PROJECT:
            await asyncio.sleep(0.01)
        await deliveries.begin_due(sending)
        assert len(hook.received) == webhook_deliveries.AT_ONCE_OF_A_PROJECT
        hook.silent = False
    await deliver(ctx)
    assert len({one.id for one in hook.received}) == webhook_deliveries.AT_ONCE_OF_A_PROJECT + 2


async def test_the_api_delivers_by_itself_and_gives_back_what_it_is_sending_when_it_ends(
    ctx: Context, client: httpx.AsyncClient, caller: Caller, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_deliveries, "POLL_SECONDS", 0.01)
    await made(client, hook.url)
    hook.silent = True
    await ended(ctx, caller)
    running = asyncio.create_task(webhook_deliveries.run(ctx))
    async with asyncio.timeout(30):
        await hook.arrived.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await due_in(ctx) or 0.0) <= 0
    hook.silent = False
    await deliver(ctx)
    assert len({one.id for one in hook.received}) == 1


async def test_what_cannot_be_an_endpoint_is_refused(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, hook: Receiver
) -> None:
    async def refused(**fields: Any) -> dict[str, Any]:
        body = {"name": "ours", "url": hook.url, "event_types": [SUCCEEDED], **fields}
        response = await client.post(ENDPOINTS, json=body)
        assert response.status_code in (400, 429), response.text
        error: dict[str, Any] = response.json()["error"]
        return error

    assert "fine_tuning.job.paused" in (await refused(event_types=["batch.completed"]))["message"]
    assert (await refused(event_types=[]))["param"] == "event_types"
    assert (await refused(url="ftp://127.0.0.1/"))["code"] == "invalid_webhook_url"
    endpoint = await made(client, hook.url)
    path = f"{ENDPOINTS}/{endpoint['id']}"
    unchanged = (await client.post(path, json={"name": "ours"})).json()
    assert unchanged["updated_at"] == endpoint["updated_at"]
    for method, place in (("GET", path), ("DELETE", path), ("POST", f"{path}/rotate_secret")):
        assert (await stranger.request(method, place)).status_code == 404
    silent = await made(client, "http://127.0.0.1:1/")
    tried = await client.post(f"{ENDPOINTS}/{silent['id']}/test", json={"event_type": SUCCEEDED})
    assert (tried.status_code, tried.json()["error"]["code"]) == (400, "webhook_endpoint_unreachable")
    await made(client, hook.url)
    assert (await refused())["code"] == "insufficient_quota"


def test_the_pauses_grow_to_six_hours_and_fill_three_days() -> None:
    pauses = [pause_seconds(attempt) for attempt in range(1, 40)]
    assert 5 <= pauses[0] <= 5.5 and all(pause <= 6.6 * 3600 for pause in pauses)
    assert 10 <= sum(1 for total in range(len(pauses)) if sum(pauses[:total]) < GIVE_UP_SECONDS) <= 30
