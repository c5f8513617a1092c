"""The gateway against engines on loopback: what they get, what comes back, and what is made of their failures."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from service.domain.errors import InvalidRequest, LuthierError, RateLimited, Unavailable
from service.gateway.client import engine_health
from service.gateway.forward import EngineRequest, EngineResponse, Gateway, RequestCost
from service.installation.create import create_context
from service.settings.settings import Settings
from tests.given.scripted_engine import COMPLETION, ScriptedEngine, answers, dies, hangs, scripted_engine, streams

EVENT = b'data: {"choices":[{"index":0,"text":"a"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
DEAD = "http://127.0.0.1:1"


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with scripted_engine() as engine:
        yield engine


@pytest.fixture
def settings(engine: ScriptedEngine) -> Settings:
    return Settings(engine_urls=f"{engine.url}/", engine_timeout_seconds=5)


@pytest.fixture
def costs() -> list[RequestCost]:
    return []


class CountedGateway(Gateway):
    """Every answer's cost goes to `costs`."""

    costs: list[RequestCost]

    async def open(
        self, request: EngineRequest, on_done: Callable[[RequestCost], None] | None = None
    ) -> EngineResponse:
        return await super().open(request, on_done or self.costs.append)


@pytest.fixture
async def gateway(settings: Settings, costs: list[RequestCost]) -> AsyncIterator[Gateway]:
    gateway = CountedGateway({"tiny": settings.engines}, settings.engine_timeout_seconds)
    gateway.costs = costs
    yield gateway
    await gateway.close()


def completion(model: str = "m", **fields: Any) -> EngineRequest:
    return EngineRequest("completions", "proj_1", "tiny", model, {"prompt": "café", **fields})


def gateway_to(*urls: str, timeout_seconds: float = 5) -> Gateway:
    return Gateway({"tiny": urls}, timeout_seconds)


async def whole(gateway: Gateway, request: EngineRequest) -> bytes:
    answer = await gateway.open(request)
    try:
        return await answer.body()
    finally:
        answer.close()


async def read_events(gateway: Gateway, **fields: Any) -> list[bytes]:
    answer = await gateway.open(completion(stream=True, **fields))
    try:
        return [ready async for ready in answer.events()]
    finally:
        answer.close()


async def test_an_answer_passes_byte_for_byte(
    gateway: Gateway, engine: ScriptedEngine, costs: list[RequestCost]
) -> None:
    assert await whole(gateway, completion(temperature=0.5)) == COMPLETION
    assert engine.seen == [{"path": "/v1/completions", "model": "m", "prompt": "café", "temperature": 0.5}]
    (cost,) = costs
    assert (cost.outcome, cost.prompt_tokens, cost.completion_tokens, cost.project_id) == ("answered", 3, 2, "proj_1")


async def test_the_time_of_an_answer_counts_from_its_request(
    gateway: Gateway, engine: ScriptedEngine, costs: list[RequestCost]
) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return web.Response(body=COMPLETION)

    engine.script = slow
    await whole(gateway, completion())
    assert 0.1 <= costs[0].seconds < 5


async def test_the_first_event_comes_before_the_last_is_made(gateway: Gateway, engine: ScriptedEngine) -> None:
    first_came = asyncio.Event()

    async def waits(request: web.Request) -> None:
        await asyncio.wait_for(first_came.wait(), 2)

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(EVENT)
        await waits(request)
        await response.write(DONE)
        return response

    engine.script = script
    answer = await gateway.open(completion(stream=True))
    events = answer.events()
    assert await anext(events) == EVENT
    first_came.set()
    assert [ready async for ready in events] == [DONE]
    answer.close()


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
async def test_a_usage_that_nobody_asked_for_is_asked_for_and_taken_out(
    gateway: Gateway, engine: ScriptedEngine, costs: list[RequestCost], options: dict[str, Any]
) -> None:
    engine.script = streams(EVENT + USAGE[:20], USAGE[20:] + DONE)
    assert b"".join(await read_events(gateway, **options)) == EVENT + DONE
    assert engine.seen[0]["stream_options"] == {"include_usage": True}
    assert (costs[0].outcome, costs[0].streamed, costs[0].completion_tokens) == ("answered", True, 2)


async def test_a_usage_that_was_asked_for_stays(gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.script = streams(EVENT, USAGE, DONE)
    assert b"".join(await read_events(gateway, stream_options={"include_usage": True})) == EVENT + USAGE + DONE


async def test_options_of_a_stream_do_not_reach_an_engine_that_does_not_stream(
    gateway: Gateway, engine: ScriptedEngine
) -> None:
    await whole(gateway, completion(stream=False, stream_options={"include_usage": True}))
    assert engine.seen == [{"path": "/v1/completions", "model": "m", "prompt": "café", "stream": False}]


async def test_connections_are_kept(gateway: Gateway, engine: ScriptedEngine) -> None:
    peers = set()

    async def script(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        streamed = engine.seen[-1].get("stream")
        return await (streams(EVENT, DONE) if streamed else answers(COMPLETION))(request)

    engine.script = script
    for _ in range(2):
        await whole(gateway, completion())
        await read_events(gateway)
    assert len(peers) == 1


async def test_closing_an_answer_hangs_up_on_the_engine(
    gateway: Gateway, engine: ScriptedEngine, costs: list[RequestCost]
) -> None:
    engine.script = streams(EVENT * 3, then=hangs)
    answer = await gateway.open(completion(stream=True))
    events = answer.events()
    assert await anext(events) == EVENT * 3
    answer.close()
    await asyncio.wait_for(engine.hung_up.wait(), 2)
    assert [(cost.outcome, cost.completion_tokens, cost.relayed_tokens) for cost in costs] == [("hung_up", None, 3)]


async def test_a_usage_counts_although_the_client_left_when_it_came(
    gateway: Gateway, engine: ScriptedEngine, costs: list[RequestCost]
) -> None:
    engine.script = streams(EVENT + USAGE, then=hangs)
    answer = await gateway.open(completion(stream=True))
    assert await anext(answer.events()) == EVENT
    answer.close()
    assert [(cost.outcome, cost.completion_tokens, cost.relayed_tokens) for cost in costs] == [("hung_up", 2, 0)]


@pytest.mark.parametrize("ending", [streams(EVENT, EVENT[:9], then=dies), streams(EVENT, EVENT[:9])])
async def test_a_stream_that_breaks_off_says_so_after_its_last_whole_event(
    gateway: Gateway, engine: ScriptedEngine, costs: list[RequestCost], ending: Any
) -> None:
    engine.script = ending
    answer = await gateway.open(completion(stream=True))
    came = []
    with pytest.raises(Unavailable):
        async for ready in answer.events():
            came.append(ready)
    answer.close()
    assert came == [EVENT]
    assert [(cost.outcome, cost.completion_tokens, cost.relayed_tokens) for cost in costs] == [("failed", None, 1)]


async def test_an_error_event_ends_a_stream(gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.script = streams(EVENT, b'data: {"error":{"message":"boom","type":"X","code":500}}\n\n', DONE)
    with pytest.raises(Unavailable, match="could not process"):
        await read_events(gateway)
    engine.script = streams(b'data: {"error":{"message":"bad stop","param":"stop","code":400}}\n\n')
    with pytest.raises(InvalidRequest, match="bad stop") as raised:
        await read_events(gateway)
    assert raised.value.param == "stop"


async def test_an_answer_that_breaks_off_is_unavailable(gateway: Gateway, engine: ScriptedEngine) -> None:
    engine.script = streams(b'{"half":', then=dies)
    with pytest.raises(Unavailable):
        await whole(gateway, completion())


async def test_an_engine_that_dies_of_a_request_does_not_take_the_next_one_with_it(engine: ScriptedEngine) -> None:
    async def abort(request: web.Request) -> web.StreamResponse:
        await dies(request)
        return web.Response()

    async with scripted_engine() as other:
        engine.script = other.script = abort
        gateway = gateway_to(engine.url, other.url)
        with pytest.raises(Unavailable):
            await gateway.open(completion())
        await gateway.close()
        assert len(engine.seen) + len(other.seen) == 1


async def test_a_silent_engine_is_given_up(engine: ScriptedEngine) -> None:
    engine.script = streams(EVENT, then=hangs)
    gateway = gateway_to(engine.url, timeout_seconds=0.2)
    with pytest.raises(Unavailable, match="did not respond in time"):
        await read_events(gateway)
    await gateway.close()


async def test_a_replica_that_is_down_is_skipped(engine: ScriptedEngine) -> None:
    gateway = gateway_to(DEAD, engine.url)
    for number in range(8):
        assert await whole(gateway, completion(f"model-{number}")) == COMPLETION
    await gateway.close()


@pytest.mark.parametrize("urls", [[DEAD], [DEAD, "http://127.0.0.1:2"], []])
async def test_without_engines_the_answer_is_unavailable(urls: list[str]) -> None:
    gateway = gateway_to(*urls)
    with pytest.raises(Unavailable, match="No engine"):
        await gateway.open(completion())
    await gateway.close()


def failure(**error: Any) -> bytes:
    return orjson.dumps({"error": error})


CONTEXT = "This model's maximum context length is 1024 tokens."


@pytest.mark.parametrize(
    ("status", "body", "kind", "param", "code"),
    [
        (400, failure(message="bad stop", param="stop", code="invalid_value"), InvalidRequest, "stop", "invalid_value"),
        (400, failure(message="bad", type="BadRequestError", param=None, code=400), InvalidRequest, None, None),
        (400, failure(message=CONTEXT, code=400), InvalidRequest, None, "context_length_exceeded"),
        (422, failure(message="bad"), InvalidRequest, None, None),
        (400, b"nonsense", Unavailable, None, None),
        (404, failure(message="The model `m` does not exist.", param="model", code=404), Unavailable, None, None),
        (401, failure(message="Unauthorized"), Unavailable, None, None),
        (429, failure(message="full"), RateLimited, None, "rate_limit_exceeded"),
        (500, failure(message="/secret/path", code=500), Unavailable, None, None),
        (503, b'["x"]', Unavailable, None, None),
        (302, b"", Unavailable, None, None),
    ],
)
async def test_an_engines_errors_are_rendered_as_ours(
    gateway: Gateway, engine: ScriptedEngine, status: int, body: bytes, kind: type[LuthierError], param: Any, code: Any
) -> None:
    engine.script = answers(body, status)
    with pytest.raises(kind) as raised:
        await gateway.open(completion())
    assert (raised.value.param, raised.value.code) == (param, code)
    if kind is InvalidRequest:
        assert raised.value.message == orjson.loads(body)["error"]["message"]
    assert "secret" not in raised.value.message
    assert ("exists" in raised.value.message) == (status == 404)


async def test_health_names_the_engines_that_answer(engine: ScriptedEngine, tmp_path: Any) -> None:
    settings = Settings(engine_urls=f"{engine.url},{DEAD}", data_dir=tmp_path)
    ctx = create_context(settings)
    assert await engine_health(ctx.engines) == {engine.url: True, DEAD: False}
    await ctx.close()
