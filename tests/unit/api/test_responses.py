"""POST /v1/responses through the public API, read by the official SDK, whole and as a stream."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest
import structlog
from openai.types.responses import Response
from pydantic import BaseModel

from service.settings.settings import Settings
from tests.given.chat_chunks import DONE as END
from tests.given.chat_chunks import call_chunk, chunk, sent, text_stream, usage_chunk, whole
from tests.given.responses_by_http import ASK, CATALOGUE, TOOL, events_of, kinds
from tests.given.scripted_engine import ScriptedEngine, answers, dies, hangs, streams


class City(BaseModel):
    name: str


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


async def test_text_becomes_a_message(sdk: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.script = answers(whole({"content": "Hi"}))
    response = await sdk.responses.create(
        model="gpt-4o-mini", input="Hello", instructions="Be kind.", max_output_tokens=7, temperature=0.5, top_p=0.9,
        metadata={"team": "a"}, user="me", safety_identifier="s", store=True, truncation="disabled", include=[],
    )  # fmt: skip
    Response.model_validate(response.to_dict())
    assert (response.output_text, response.status, response.model) == ("Hi", "completed", "tiny")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (3, 2, 5)
    assert (response.instructions, response.metadata, response.user) == ("Be kind.", {"team": "a"}, "me")
    assert (response.max_output_tokens, response.temperature, response.top_p) == (7, 0.5, 0.9)
    assert response.error is None and response.incomplete_details is None
    [asked] = engine.seen
    assert asked == {
        "path": "/v1/chat/completions",
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
    }


@pytest.mark.parametrize("store", [True, False, None])
async def test_a_header_says_that_nothing_is_stored(
    client: httpx.AsyncClient, engine: ScriptedEngine, store: bool | None
) -> None:
    engine.script = answers(whole({"content": "Hi"}))
    response = await client.post("/responses", json={**ASK, "store": store})
    assert (response.status_code, response.headers["luthier-stored"]) == (200, "false")
    assert response.json()["store"] is False


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/responses/resp_1"),
        ("DELETE", "/responses/resp_1"),
        ("GET", "/responses/resp_1/input_items"),
        ("POST", "/responses/resp_1/cancel"),
    ],
)
async def test_a_stored_response_is_never_found(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (404, "invalid_request_error", "response_id")
    assert "'resp_1' not found" in error["message"] and "not stored" in error["message"]
    assert (await client.request(method, path, headers={"Authorization": "Bearer no"})).status_code == 401


async def test_a_stream_of_text_has_openais_events(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.script = streams(*text_stream("Hi", " you"))
    events = await events_of(client)
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["delta"] for event in events if event["type"].endswith("delta")] == ["Hi", " you"]
    assert events[2]["item"]["content"] == [] and events[2]["item"]["status"] == "in_progress"
    assert events[6]["text"] == events[7]["part"]["text"] == events[8]["item"]["content"][0]["text"] == "Hi you"
    created, completed = events[0]["response"], events[-1]["response"]
    assert (created["status"], created["output"], created["model"]) == ("in_progress", [], "tiny")
    assert completed["id"] == created["id"]
    assert completed["output"] == [events[8]["item"]]
    assert completed["usage"]["total_tokens"] == 5
    assert engine.seen[0]["stream_options"] == {"include_usage": True}


async def test_the_sdks_stream_and_parse_give_the_same_object(sdk: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.script = streams(*text_stream('{"name"', ': "Oslo"}'))
    async with sdk.responses.stream(model="tiny", input="Where?", text_format=City) as stream:
        async for _ in stream:
            pass
        streamed = await stream.get_final_response()
    engine.script = answers(whole({"content": '{"name": "Oslo"}'}))
    parsed = await sdk.responses.parse(model="tiny", input="Where?", text_format=City)
    assert streamed.output_parsed == parsed.output_parsed == City(name="Oslo")
    for asked in engine.seen:
        assert asked["response_format"]["type"] == "json_schema"
        schema = asked["response_format"]["json_schema"]
        assert (schema["name"], schema["strict"], list(schema["schema"]["properties"])) == ("City", True, ["name"])


async def test_calls_and_their_outputs_go_there_and_back(sdk: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    engine.script = answers(whole({"content": None, "tool_calls": [call]}, "tool_calls"))
    first = await sdk.responses.create(
        model="tiny", input="Weather in Oslo?", tools=[TOOL], tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
    )  # type: ignore[call-overload]  # fmt: skip
    [made] = first.output
    assert (made.type, made.call_id, made.name, made.arguments) == (
        "function_call", "call_1", "weather", '{"city": "Oslo"}',
    )  # fmt: skip
    Response.model_validate(first.to_dict())
    chat_tool = {"type": "function", "function": {key: TOOL[key] for key in TOOL if key != "type"}}
    assert engine.seen[0]["tools"] == [chat_tool]
    assert engine.seen[0]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert engine.seen[0]["parallel_tool_calls"] is False

    engine.script = answers(whole({"content": "Rain."}))
    output = {"type": "function_call_output", "call_id": made.call_id, "output": "rain"}
    history = [{"role": "user", "content": "Weather in Oslo?"}, made.to_dict(), output]
    second = await sdk.responses.create(model="tiny", input=history, tools=[TOOL])  # type: ignore[arg-type]
    assert second.output_text == "Rain."
    assert engine.seen[1]["messages"] == [
        {"role": "user", "content": "Weather in Oslo?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]


async def test_a_stream_of_calls_has_openais_events(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.script = streams(
        chunk({"role": "assistant", "content": "Let me see."}),
        call_chunk(0, "", "weather", "call_1"),
        call_chunk(0, '{"city":'),
        call_chunk(1, '{"city": "Rome"}', "weather", "call_2"),
        call_chunk(0, ' "Oslo"}'),  # engines may go back to an earlier call
        chunk({}, "tool_calls"),
        usage_chunk(),
        END,
    )
    events = await events_of(client, tools=[TOOL])
    assert kinds(events) == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert [item["arguments"] for item in output[1:]] == ['{"city": "Oslo"}', '{"city": "Rome"}']
    assert [item["call_id"] for item in output[1:]] == ["call_1", "call_2"]
    finished = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert finished == output


async def test_reasoning_is_an_item_of_its_own(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.script = streams(chunk({"reasoning": "Hm. "}), chunk({"reasoning": "Ah."}), *text_stream("Hi"))
    events = await events_of(client)
    assert kinds(events)[2:8] == [
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done",
    ]  # fmt: skip
    thought, said = events[-1]["response"]["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm. Ah."}]
    assert said["content"][0]["text"] == "Hi"
    engine.script = answers(whole({"content": "Hi", "reasoning": "Hm. Ah."}))
    response = await client.post("/responses", json={**ASK, "input": [thought, said, {"role": "user", "content": "?"}]})
    assert [item["type"] for item in response.json()["output"]] == ["reasoning", "message"]
    assert engine.seen[-1]["messages"][0] == {
        "role": "assistant", "reasoning": "Hm. Ah.", "content": [{"type": "text", "text": "Hi"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("finish_reason", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_a_response_that_was_cut_is_incomplete(
    client: httpx.AsyncClient, engine: ScriptedEngine, finish_reason: str, reason: str
) -> None:
    engine.script = streams(*text_stream("Hi", finish_reason=finish_reason))
    events = await events_of(client, max_output_tokens=2)
    streamed = events[-1]["response"]
    engine.script = answers(whole({"content": "Hi"}, finish_reason))
    made = (await client.post("/responses", json={**ASK, "max_output_tokens": 2})).json()
    Response.model_validate(made)
    assert events[-1]["type"] == "response.incomplete"
    for response in (streamed, made):
        assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
        assert response["output"][0]["status"] == "incomplete"


async def test_an_engine_that_says_nothing_gives_an_empty_message(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    engine.script = streams(*text_stream())
    streamed = (await events_of(client))[-1]["response"]
    engine.script = answers(whole({"content": ""}))
    made = (await client.post("/responses", json=ASK)).json()
    for response in (streamed, made):
        [message] = response["output"]
        assert (message["content"][0]["text"], message["status"]) == ("", "completed")


async def test_logprobs_are_included_when_asked_for(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    top = {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}
    entry = {"token": "Hi", "logprob": -0.5, "bytes": None, "top_logprobs": [top]}
    shown = {"token": "Hi", "logprob": -0.5, "bytes": [], "top_logprobs": [top]}
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    engine.script = streams(chunk({"content": "Hi"}, "stop", logprobs={"content": [entry]}), usage_chunk(), END)
    events = await events_of(client, **asked)
    assert [event["logprobs"] for event in events if "output_text." in event["type"]] == [[shown], [shown]]
    engine.script = answers(whole({"content": "Hi"}, logprobs={"content": [entry]}))
    made = (await client.post("/responses", json={**ASK, **asked})).json()
    for response in (events[-1]["response"], made):
        assert response["output"][0]["content"][0]["logprobs"] == [shown]
    assert all(seen["logprobs"] is True and seen["top_logprobs"] == 1 for seen in engine.seen)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ([sent({"error": {"message": "CUDA", "code": 500}}), END], "could not process"),
        ([b'data: {"choices": [{"del\n\n', END], "cannot be read"),
        ([sent({"choices": [{"index": 0}]}), END], "cannot be read"),
        ([sent({"choices": "none"}), END], "cannot be read"),
        ([call_chunk(0, "{}"), END], "cannot be read"),
        ([chunk({"tool_calls": ["x"]}), END], "cannot be read"),
        ([chunk({}, "abort"), END], "without a result"),
        ([END], "without a result"),
        ([chunk({}, "stop")], "ended too early"),
        ([], "ended too early"),
    ],
)
async def test_a_stream_that_breaks_ends_in_a_failure(
    client: httpx.AsyncClient, engine: ScriptedEngine, last: list[bytes], said: str
) -> None:
    engine.script = streams(chunk({"content": "Half"}), *last)
    events = await events_of(client)
    assert kinds(events)[-2:] == ["error", "failed"]
    assert (events[-2]["code"], events[-2]["param"]) == ("server_error", None)
    failed = events[-1]["response"]
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
    assert said in failed["error"]["message"] and events[-2]["message"] == failed["error"]["message"]
    assert failed["output"][0]["content"][0]["text"] == "Half"
    assert failed["output"][0]["status"] == "incomplete"


async def test_an_engine_that_dies_in_a_stream_is_a_failure(sdk: openai.AsyncOpenAI, engine: ScriptedEngine) -> None:
    engine.script = streams(chunk({"content": "Half"}), then=dies)
    stream = await sdk.responses.create(model="tiny", input="Hello", stream=True)
    last = [event async for event in stream][-1]
    assert last.type == "response.failed"
    assert last.response.error is not None and "broke before" in last.response.error.message


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"choices": []}', whole({"content": "Hi"}, "abort")])
async def test_a_body_that_cannot_be_read_is_retried(
    client: httpx.AsyncClient, engine: ScriptedEngine, body: bytes
) -> None:
    engine.script = answers(body)
    response = await client.post("/responses", json=ASK)
    assert (response.status_code, response.json()["error"]["type"]) == (503, "server_error")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_frees_the_engine(
    base_url: str, key: str, engine: ScriptedEngine, stream: bool
) -> None:
    engine.script = streams(chunk({"content": "Hi"}), then=hangs)
    async with httpx.AsyncClient(base_url=base_url, headers={"Authorization": f"Bearer {key}"}) as client:
        request = client.build_request("POST", "/responses", json={**ASK, "stream": stream})
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


async def test_an_unreadable_stream_counts_as_the_engines_failure(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    engine.script = streams(chunk({"content": "Half"}), sent({"choices": "none"}), END)
    with structlog.testing.capture_logs() as logs:
        await events_of(client)
    assert [log["outcome"] for log in logs if log["event"] == "inference.done"] == ["failed"]
