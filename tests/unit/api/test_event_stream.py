"""A job's events as a stream: nothing missed, nothing twice, and an end when the job has one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJobEvent

from service.api.routes import jobs as event_stream
from service.api.web import auth, job_feeds
from service.installation.context import Context
from service.operations import jobs, keys
from service.operations.keys import Caller
from tests.conftest import ClientOf
from tests.given.jobs_by_http import JOBS, create, listed
from tests.given.stored_jobs import tell

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.01)


@pytest.fixture
async def follower(base_url: str, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        yield sdk


def told(text: str) -> list[dict[str, object]]:
    """The events of a whole stream, whose ids and names are right."""
    *said, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    lines = [event.removeprefix(event_stream.HEARTBEAT.decode()).split("\n") for event in said]
    found: list[dict[str, object]] = [json.loads(data.removeprefix("data: ")) for _, _, data in lines]
    assert [line[:2] for line in lines] == [[f"id: {event['id']}", "event: fine_tuning.job.event"] for event in found]
    return found


@asynccontextmanager
async def following(base_url: str, key: str, id: str) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of a stream that has begun; who leaves hangs up."""
    async with (
        httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {key}"}) as client,
        client.stream("GET", f"{JOBS}/{id}/events", params={"stream": "true"}) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        yield response.aiter_lines()


async def test_the_stream_of_an_ended_job_is_its_list_oldest_first(ctx: Context, client: httpx.AsyncClient) -> None:
    id = (await create(client))["id"]
    await tell(ctx, id, *range(event_stream.BATCH_EVENTS - 2))  # with the first and the last: exactly one batch
    await client.post(f"{JOBS}/{id}/cancel")
    response = await client.get(f"{JOBS}/{id}/events", params={"stream": "true"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert told(response.text) == await listed(client, id)
    assert len(told(response.text)) == event_stream.BATCH_EVENTS


@pytest.mark.parametrize("how", ["header", "query", "both"])
async def test_a_stream_goes_on_behind_the_event_seen_last(client: httpx.AsyncClient, ctx: Context, how: str) -> None:
    id = (await create(client))["id"]
    await tell(ctx, id, 1, 2, 3)
    await client.post(f"{JOBS}/{id}/cancel")
    all_events = await listed(client, id)
    seen, earlier = str(all_events[2]["id"]), str(all_events[0]["id"])
    after = {"header": {}, "query": {"after": seen}, "both": {"after": earlier}}[how]
    headers = {} if how == "query" else {"Last-Event-ID": seen}
    response = await client.get(f"{JOBS}/{id}/events", params={"stream": "true", **after}, headers=headers)
    assert told(response.text) == all_events[3:]


async def test_a_follower_sees_every_event_once_while_they_are_written(
    ctx: Context, client: httpx.AsyncClient, base_url: str, key: str
) -> None:
    id = (await create(client))["id"]

    async def work() -> None:
        for number in range(0, 300, 3):
            await tell(ctx, id, number, number + 1, number + 2)
        await client.post(f"{JOBS}/{id}/cancel")

    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60) as follower:
        response, _ = await asyncio.gather(follower.get(f"{JOBS}/{id}/events", params={"stream": "true"}), work())
    assert told(response.text) == await listed(client, id)


async def test_an_event_comes_while_the_job_runs_and_a_silent_job_is_heard(
    ctx: Context, client: httpx.AsyncClient, base_url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
    id = (await create(client))["id"]
    async with asyncio.timeout(30), following(base_url, key, id) as lines:
        assert [await anext(lines) for _ in range(4)][1] == "event: fine_tuning.job.event"
        assert await anext(lines) == event_stream.HEARTBEAT.decode().strip()
        await tell(ctx, id, 1)
        while not (line := await anext(lines)).startswith("data: "):
            pass
        assert json.loads(line.removeprefix("data: "))["message"] == "1"


async def test_the_sdk_reads_the_stream_through_heartbeats(
    ctx: Context, client: httpx.AsyncClient, follower: openai.AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.0)
    id = (await create(client))["id"]
    messages: list[str] = []
    stream = await follower.get(
        f"{JOBS}/{id}/events",
        cast_to=FineTuningJobEvent,
        stream=True,
        stream_cls=openai.AsyncStream[FineTuningJobEvent],
        options={"params": {"stream": True}},
    )
    async with asyncio.timeout(30):
        async for event in stream:
            messages.append(event.message)
            await asyncio.sleep(0.05)  # some heartbeats
            if len(messages) < 3:
                await tell(ctx, id, len(messages))
            elif len(messages) == 3:
                await client.post(f"{JOBS}/{id}/cancel")
    assert messages == [f"Created fine-tuning job: {id}", "1", "2", "The job was cancelled"]


async def test_a_stream_ends_when_its_client_hangs_up(
    client: httpx.AsyncClient, base_url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def counted(*args: object) -> object:
        nonlocal looks
        looks += 1
        return await next_events(*args)  # type: ignore[arg-type]

    next_events = jobs.next_events
    monkeypatch.setattr(jobs, "next_events", counted)
    id = (await create(client))["id"]
    async with following(base_url, key, id) as lines:
        await anext(lines)
    await asyncio.sleep(0.2)
    seen = looks
    await asyncio.sleep(0.2)
    assert looks == seen > 0


async def test_what_is_wrong_is_said_before_the_stream(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, client_of: ClientOf
) -> None:
    id = (await create(client))["id"]
    query = {"stream": "true"}
    for asked, wrong, status in [(stranger, id, 404), (client, "ftjob-nothing", 404), (client_of("no"), id, 401)]:
        response = await asked.get(f"{JOBS}/{wrong}/events", params=query)
        assert (response.status_code, list(response.json())) == (status, ["error"])
    other = (await listed(client, (await create(client))["id"]))[0]["id"]
    for unknown in ("nothing", str(other)):
        response = await client.get(f"{JOBS}/{id}/events", params=query, headers={"Last-Event-ID": unknown})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "after")
        assert unknown in response.json()["error"]["message"]


async def test_many_followers_share_one_poller(
    ctx: Context, client: httpx.AsyncClient, base_url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def counted(*args: object) -> object:
        nonlocal looks
        looks += 1
        return await next_events(*args)  # type: ignore[arg-type]

    next_events = jobs.next_events
    monkeypatch.setattr(jobs, "next_events", counted)
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.1)
    id = (await create(client))["id"]
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60, limits=limits) as follower:
        asked = [asyncio.create_task(follower.get(f"{JOBS}/{id}/events", params={"stream": "true"})) for _ in range(40)]
        await asyncio.sleep(1)
        await tell(ctx, id, 1, 2)
        await client.post(f"{JOBS}/{id}/cancel")
        responses = await asyncio.gather(*asked)
    expected = await listed(client, id)
    assert all(told(response.text) == expected for response in responses)
    assert looks < 40 * 3  # each reads at most what was there before it came; by itself it would look ten times


async def test_it_looks_often_right_after_an_event_and_ever_less_without(
    ctx: Context, caller: Caller, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = (await create(client))["id"]
    pauses: list[float] = []

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            await tell(ctx, id, 1)
        if len(pauses) == 10:
            await jobs.cancel(ctx, caller, id)

    monkeypatch.setattr(job_feeds, "sleep", noted)
    feed = job_feeds.JobFeed(ctx, caller, id, 0, 8.0)
    found, ended = 0, False
    async with asyncio.timeout(30):
        while not ended:
            batch = await feed.next(found, 100, 30)
            found, ended = found + len(batch.events), batch.ended
    assert found == len(await listed(client, id))
    assert pauses[:8] == [1.0, 1.5, 2.25, 3.375, 5.0625, 7.59375, 8.0, 8.0]
    assert pauses[8:] == [1.0, 1.5]


async def test_a_revoked_keys_stream_ends(
    ctx: Context, client: httpx.AsyncClient, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(auth, "CACHE_SECONDS", 0.02)
    id = (await create(client))["id"]
    key = await keys.create_key(ctx, "default", "project", "revoked")
    async with asyncio.timeout(30), following(base_url, key, id) as lines:
        await anext(lines)
        (revoked,) = [found.id for found in await keys.list_keys(ctx) if found.name == "revoked"]
        await keys.revoke_key(ctx, revoked)
        last = ""
        async for line in lines:
            last = line or last
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "invalid_api_key"
