"""The progress of our examples: the stream of events, taken up where a connection broke, each event once."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from examples.demo import jobs as example
from service.api.routes import jobs as event_stream
from service.domain.errors import Unavailable
from service.installation.context import Context
from service.operations import jobs
from tests.given.jobs_by_http import JOBS, create, listed
from tests.given.stored_jobs import tell


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(event_stream, "BATCH_EVENTS", 2)
    monkeypatch.setattr(example, "PAUSE_SECONDS", 0.01)


@pytest.fixture
async def sdk(base_url: str, key: str) -> AsyncIterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        yield sdk


def followed(sdk: openai.OpenAI, id: str) -> list[str]:
    return [event.id for event in example.follow(sdk, id)]


@pytest.mark.parametrize("breaks", [RuntimeError("the connection is cut"), Unavailable("the database is unavailable")])
async def test_a_broken_stream_goes_on_behind_the_last_event(
    ctx: Context, client: httpx.AsyncClient, sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, breaks: Exception
) -> None:
    looks = 0

    async def breaking(*args: object) -> jobs.NextEvents:
        nonlocal looks
        looks += 1
        if looks % 3 == 2:
            raise breaks
        return await next_events(*args)  # type: ignore[arg-type]

    next_events = jobs.next_events
    monkeypatch.setattr(jobs, "next_events", breaking)
    id = (await create(client))["id"]
    await tell(ctx, id, *range(20))
    following = asyncio.create_task(asyncio.to_thread(followed, sdk, id))
    await asyncio.sleep(0.1)
    await tell(ctx, id, 20, 21)
    await client.post(f"{JOBS}/{id}/cancel")
    async with asyncio.timeout(30):
        assert await following == [event["id"] for event in await listed(client, id)]
    assert looks > 10


async def test_who_may_not_see_the_job_is_told_at_once(client: httpx.AsyncClient, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await asyncio.to_thread(followed, sdk, "ftjob-nothing")


async def test_a_server_that_stays_away_is_given_up(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "GIVE_UP_SECONDS", 0.2)
    with (
        openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="x", max_retries=0) as away,
        pytest.raises(openai.APIConnectionError),
    ):
        await asyncio.to_thread(followed, away, "ftjob-1")
