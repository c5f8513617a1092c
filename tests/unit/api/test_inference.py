"""Completions through the public API: ours on a socket, an engine behind it, and the official SDK before it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from aiohttp import web
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from service.installation.context import Context
from service.settings.settings import Settings
from tests.given.scripted_engine import COMPLETION, ScriptedEngine, answers, dies, hangs, streams
from tests.given.statements import statements

CATALOGUE = """
[[base]]
id = "tiny"
aliases = ["gpt-4o-mini"]
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { tunings = ["lora"] }
"""
CHAT_EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
)
USAGE = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"tiny","choices":[],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
)
DONE = b"data: [DONE]\n\n"
COMPLETE = {"model": "tiny", "prompt": "Hello"}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: what is asked here is decided before and behind it."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    catalogue = tmp_path / "bases.toml"
    catalogue.write_text(CATALOGUE)
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url, catalogue=catalogue)


@pytest.fixture
async def sdk(base_url: str, key: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        yield sdk


async def test_the_sdk_gets_the_engines_answer(sdk: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    completion = await sdk.completions.create(model="gpt-4o-mini", prompt="Hello", user="me")
    assert completion.choices[0].text == "café"
    assert completion.usage is not None and completion.usage.total_tokens == 5
    assert engine.seen == [{"path": "/v1/completions", "model": "tiny", "prompt": "Hello"}]


async def test_bytes_and_headers_of_a_good_answer(client: httpx.AsyncClient) -> None:
    response = await client.post("/completions", json=COMPLETE)
    assert (response.status_code, response.content) == (200, COMPLETION)
    assert response.headers["content-type"] == "application/json"


async def test_guard_a_completion_asks_the_database_nothing_once_its_names_are_known(
    client: httpx.AsyncClient, ctx: Context
) -> None:
    """Counted, since each statement takes longer than all else of a request: what may be kept is read once."""
    assert (await client.post("/completions", json=COMPLETE)).status_code == 200
    with statements(ctx) as sent:
        for _ in range(20):
            assert (await client.post("/completions", json=COMPLETE)).status_code == 200
    assert len([one for one in sent if not one.startswith("PRAGMA")]) == 0, sent


async def test_guard_requests_that_come_together_read_what_they_need_once(
    client: httpx.AsyncClient, ctx: Context
) -> None:
    """Counted, since a hundred reads at once make every request wait for all of them."""
    assert (await client.post("/model_aliases", json={"name": "bot", "model": "tiny"})).status_code == 200
    elsewhere = {"OpenAI-Organization": "org-of-another-service"}  # so the key is not known yet
    asked = COMPLETE | {"model": "bot"}
    with statements(ctx) as sent:
        responses = await asyncio.gather(
            *(client.post("/completions", json=asked, headers=elsewhere) for _ in range(20))
        )
    assert [response.status_code for response in responses] == [200] * 20
    assert len([one for one in sent if one.startswith("BEGIN")]) == 2, sent  # the key's caller, the alias


async def test_guard_events_that_arrive_together_are_sent_with_one_message(
    app: FastAPI, key: str, engine: ScriptedEngine
) -> None:
    """Counted, since a message is a call of the system: most of what an event costs."""
    engine.script = streams(CHAT_EVENT * 20 + USAGE + DONE)
    bodies: list[bytes] = []

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            bodies.append(message.get("body", b""))
            await send(message)

        await app(scope, receive, note)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(noted), base_url="http://luthier/v1", headers={"Authorization": f"Bearer {key}"}
    ) as client:
        await client.post("/chat/completions", json={**CHAT, "stream": True})
    assert [body for body in bodies if body] == [CHAT_EVENT * 20 + DONE]


async def test_the_sdk_reads_a_stream_while_it_is_made(sdk: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    first_came = asyncio.Event()

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(CHAT_EVENT)
        await asyncio.wait_for(first_came.wait(), 2)
        await response.write(CHAT_EVENT + USAGE + DONE)
        return response

    engine.script = script
    said = []
    stream = await sdk.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    async for chunk in stream:
        first_came.set()
        assert chunk.usage is None
        said.append(chunk.choices[0].delta.content)
    assert said == ["Hi", "Hi"]


async def test_a_stream_has_the_headers_of_one(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.script = streams(CHAT_EVENT, USAGE, DONE)
    asked = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    response = await client.post("/chat/completions", json=asked)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.content == CHAT_EVENT + USAGE + DONE


@pytest.mark.parametrize("script", [streams(CHAT_EVENT, then=hangs), hangs], ids=["in a stream", "before the answer"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_frees_the_engine(
    base_url: str, key: str, engine: ScriptedEngine, script: Any, stream: bool
) -> None:
    engine.script = script
    async with httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {key}"}) as client:
        request = client.build_request("POST", "/chat/completions", json={**CHAT, "stream": stream})
        asking = asyncio.create_task(client.send(request, stream=True))
        while not engine.seen:
            await asyncio.sleep(0.01)
        await asyncio.wait({asking}, timeout=0.2)
        if asking.done():
            await asking.result().aclose()
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    await asyncio.wait_for(engine.hung_up.wait(), 2)


async def test_a_stream_that_breaks_off_ends_in_an_error(sdk: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.script = streams(CHAT_EVENT, then=dies)
    said = []
    stream = await sdk.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    with pytest.raises(openai.APIError, match="broke before its response was complete"):
        async for chunk in stream:
            said.append(chunk.choices[0].delta.content)
    assert said == ["Hi"]


async def test_the_error_of_a_broken_stream_is_an_envelope(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.script = streams(CHAT_EVENT, then=dies)
    response = await client.post("/chat/completions", json={**CHAT, "stream": True})
    assert response.content.startswith(CHAT_EVENT + b'data: {"error":')
    assert response.content.endswith(b"\n\n") and DONE not in response.content
    error = orjson.loads(response.content[len(CHAT_EVENT) + len(b"data: ") :])["error"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, None)


@pytest.mark.parametrize("stream", [True, False])
async def test_errors_before_the_first_byte_have_their_status(
    client: httpx.AsyncClient, engine: ScriptedEngine, stream: bool
) -> None:
    async def status_of(script: Any) -> int:
        engine.script = script
        return (await client.post("/completions", json={**COMPLETE, "stream": stream})).status_code

    assert await status_of(answers(b'{"error":{"message":"no","code":400}}', 400)) == 400
    assert await status_of(answers(b'{"error":{"message":"no such model","code":404}}', 404)) == 503
    assert await status_of(answers(b"", 500)) == 503


async def test_only_models_that_exist_reach_an_engine(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    response = await client.post("/completions", json={"model": "ft:tiny:luthier::gone", "prompt": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert engine.seen == []


async def test_only_callers_with_a_key_reach_an_engine(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    response = await client.post("/completions", json=COMPLETE, headers={"Authorization": "Bearer no"})
    assert response.status_code == 401
    assert engine.seen == []


async def test_what_is_no_json_object_is_refused_as_by_every_other_route(client: httpx.AsyncClient) -> None:
    bodies = [b"", b"{", b"null", b"[1]", b'"text"', b"\xff", b"[" * 60, b'{"a": 1, "b": {"c": 1, "c": 2}}', b"{}"]
    kinds = [
        None,
        "text/plain",
        "application/json",
        "application/json; charset=utf-8",
        "Application/Vnd.a+JSON",
        "json",
    ]
    for body, kind in [*((body, "application/json") for body in bodies[:-1]), *((b"{}", kind) for kind in kinds)]:
        sent = {"content": body, "headers": {} if kind is None else {"content-type": kind}}
        found = [await client.post(path, **sent) for path in ("/completions", "/fine_tuning/jobs")]
        statuses, errors = {one.status_code for one in found}, [one.json()["error"] for one in found]
        assert statuses == {400}
        if body == b"{}" and errors[1]["param"] is not None:  # an object, of which each route misses something else
            assert errors[0]["code"] == errors[1]["code"] == "missing_required_parameter"
        else:
            assert errors[0] == errors[1], (body, kind)
