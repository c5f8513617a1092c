"""What a key may ask for per minute: OpenAI's arithmetic, OpenAI's headers, and what the official SDK makes of them."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI

from service.domain.errors import RateLimited
from service.gateway.forward import EngineRequest, RequestCost
from service.gateway.limits import PerMinute, RateLimits, create_limits, duration, estimated_tokens
from service.gateway.limits.memory import MemoryLimits
from service.operations.keys import Caller
from service.settings.settings import Settings
from tests.conftest import ClientOf
from tests.given.scripted_engine import ScriptedEngine, answers, dies, hangs, streams

COMPLETE = {"model": "luthier-tiny", "prompt": "Hello"}
LIMIT_HEADERS = {
    f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")
}
STREAMED = (
    b'data: {"id":"c","object":"text_completion","created":1,"model":"luthier-tiny","choices":[],'
    b'"usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42}}\n\n'
    b"data: [DONE]\n\n"
)
TOKEN = b'data: {"id":"c","object":"text_completion","created":1,"choices":[{"index":0,"text":" a"}]}\n\n'
CHAT_TOKEN = b'data: {"id":"c","created":1,"choices":[{"index":0,"delta":{"content":" a"},"finish_reason":null}]}\n\n'
ASKS = {
    "/completions": COMPLETE,
    "/chat/completions": {"model": "luthier-tiny", "messages": [{"role": "user", "content": "Hello"}]},
    "/responses": {"model": "luthier-tiny", "input": "Hello"},
}


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: what is asked here is decided before and behind it."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits_of(clock: Clock, **per_minute: int) -> RateLimits:
    return MemoryLimits(PerMinute(**per_minute), clock)


def asking(tokens: int = 1, key_id: str = "key_1") -> EngineRequest:
    return EngineRequest("completions", "proj_1", "tiny", "tiny", {}, key_id, tokens)


def cost(prompt: int | None, completion: int | None, reserved: int, relayed: int = 0) -> RequestCost:
    done = RequestCost(
        "completions", "proj_1", "key_1", "tiny", "tiny", False, "answered", prompt, completion, reserved, 0.1
    )
    return replace(done, relayed_tokens=relayed)


async def refusal(limits: RateLimits, request: EngineRequest) -> RateLimited:
    with pytest.raises(RateLimited) as refused:
        await limits.admit(request, "acme")
    return refused.value


@pytest.mark.parametrize(
    ("limit", "used", "requested", "wait"),
    [(10_000, 8339, 7835, "37.044s"), (30_000, 22_999, 12_528, "11.054s"), (10_000, 9999, 2, "6ms")],
)
async def test_the_wait_is_the_one_that_openai_tells(
    clock: Clock, limit: int, used: int, requested: int, wait: str
) -> None:
    """The first two are answers of OpenAI that users have published."""
    limits = limits_of(clock, tokens=limit)
    await limits.admit(asking(used), "acme")
    error = await refusal(limits, asking(requested))
    assert error.message.startswith(
        "Rate limit reached for tiny in organization acme on tokens per min (TPM): "
        f"Limit {limit}, Used {used}, Requested {requested}. Please try again in {wait}."
    )
    assert (error.status, error.type, error.code) == (429, "tokens", "rate_limit_exceeded")
    assert error.retry_after_seconds is not None
    clock.now += error.retry_after_seconds
    await limits.admit(asking(requested), "acme")


async def test_requests_come_back_one_by_one(clock: Clock) -> None:
    limits = limits_of(clock, requests=3)
    for _ in range(3):
        await limits.admit(asking(), "acme")
    error = await refusal(limits, asking())
    assert error.type == "requests"
    assert "on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s." in error.message
    clock.now += 20
    await limits.admit(asking(), "acme")
    await refusal(limits, asking())
    clock.now += 60
    assert limits.standing("key_1")["requests"].remaining == 3


async def test_a_refused_request_costs_nothing_and_other_keys_nothing_either(clock: Clock) -> None:
    limits = limits_of(clock, requests=2, tokens=100)
    await limits.admit(asking(90), "acme")
    for _ in range(5):
        assert (await refusal(limits, asking(20))).type == "tokens"
    assert limits.standing("key_1")["requests"].remaining == 1
    await limits.admit(asking(20, key_id="key_2"), "acme")


async def test_an_answers_real_cost_takes_the_place_of_its_estimate(clock: Clock) -> None:
    limits = limits_of(clock, tokens=100)

    def left() -> int:
        return limits.standing("key_1")["tokens"].remaining

    await limits.admit(asking(50), "acme")
    assert left() == 50
    limits.settle(cost(5, 5, reserved=50))
    assert left() == 90
    limits.settle(cost(None, None, reserved=50))  # nobody knows: the estimate stands
    assert left() == 90
    limits.settle(cost(None, None, reserved=50, relayed=20))  # a stream that broke off: what came is added
    assert left() == 70
    limits.settle(cost(1000, 1000, reserved=0))  # far more than there was
    assert left() == 0
    assert ((await refusal(limits, asking(1))).retry_after_seconds or 0) <= 120  # the SDKs wait no longer


async def test_a_request_that_can_never_fit_is_not_worth_a_retry(clock: Clock) -> None:
    error = await refusal(limits_of(clock, tokens=10), asking(11))
    assert error.message.startswith(
        "Request too large for tiny in organization acme on tokens per min (TPM): Limit 10,"
    )
    assert (error.may_retry, error.retry_after_seconds) == (False, None)


async def test_without_limits_nothing_is_counted(clock: Clock) -> None:
    limits = limits_of(clock)
    for _ in range(100):
        await limits.admit(asking(10**9), "acme")
    limits.settle(cost(1, 1, 1))
    assert limits.standing("key_1") == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0001, "1ms"), (0.006, "6ms"), (1, "1s"), (37.044, "37.044s"), (59.9999, "1m0s"), (360, "6m0s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"prompt": "x" * 400}, 100),
        ({"prompt": ["x" * 40, "x" * 40]}, 20),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2], [3]]}, 3),
        ({"prompt": ""}, 1),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 392}]}]}, 100),
    ],
)
def test_a_prompt_is_estimated_before_it_is_tokenised(fields: dict[str, Any], tokens: int) -> None:
    assert estimated_tokens(fields) == tokens


def limited(app: FastAPI, clock: Clock | None = None, **limits: int) -> RateLimits:
    """Gives the running API these limits."""
    per_minute = PerMinute(**limits)
    made = create_limits(per_minute, None) if clock is None else MemoryLimits(per_minute, clock)
    app.state.context = replace(app.state.context, limits=made)
    return made


async def test_every_completion_says_what_is_left(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings, clock: Clock
) -> None:
    limited(app, clock, requests=60, tokens=6000)
    answered = await client.post("/completions", json=COMPLETE)
    found = {name: value for name, value in answered.headers.items() if name.startswith("x-ratelimit")}
    assert found == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "5995",  # the engine said 5, not what was estimated
        "x-ratelimit-reset-tokens": "50ms",
    }
    refused = await client.post("/completions", json={**COMPLETE, "model": "nothing"})
    assert (refused.status_code, refused.headers["x-ratelimit-remaining-requests"]) == (404, "59")
    assert LIMIT_HEADERS.isdisjoint((await client.get("/models")).headers)


async def test_without_limits_no_answer_speaks_of_them(client: httpx.AsyncClient) -> None:
    answered = await client.post("/completions", json=COMPLETE)
    assert answered.status_code == 200
    assert LIMIT_HEADERS.isdisjoint(answered.headers)


async def test_a_stream_is_charged_at_its_end(
    app: FastAPI, client: httpx.AsyncClient, engine: ScriptedEngine, settings: Settings, clock: Clock
) -> None:
    limited(app, clock, tokens=100)
    engine.script = streams(STREAMED)
    first = await client.post("/completions", json={**COMPLETE, "stream": True})
    assert first.headers["x-ratelimit-remaining-tokens"] == "98"  # the estimate: it had only begun
    second = await client.post("/completions", json={**COMPLETE, "stream": True})
    assert second.headers["x-ratelimit-remaining-tokens"] == "56"


@pytest.mark.parametrize("path", ["/completions", "/chat/completions", "/responses"])
async def test_a_stream_whose_engine_dies_is_charged_what_was_relayed(
    app: FastAPI,
    client: httpx.AsyncClient,
    caller: Caller,
    engine: ScriptedEngine,
    settings: Settings,
    clock: Clock,
    path: str,
) -> None:
    limits = limited(app, clock, tokens=1000)
    engine.script = streams(*[TOKEN if path == "/completions" else CHAT_TOKEN] * 300, then=dies)
    broken = await client.post(path, json={**ASKS[path], "stream": True})
    assert broken.status_code == 200
    assert "error" in broken.text
    prompt = 2 if path == "/completions" else 3  # of a message the role counts, too
    assert limits.standing(caller.key_id)["tokens"].remaining == 1000 - prompt - 300


async def test_a_client_that_hangs_up_on_a_stream_is_charged_what_was_relayed(
    app: FastAPI, base_url: str, key: str, caller: Caller, engine: ScriptedEngine, settings: Settings, clock: Clock
) -> None:
    limits = limited(app, clock, tokens=1000)
    engine.script = streams(*[TOKEN] * 300, then=hangs)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers) as client, asyncio.timeout(30):
        async with client.stream("POST", f"{base_url}/completions", json={**COMPLETE, "stream": True}) as response:
            lines = response.aiter_lines()
            for _ in range(2 * 300):  # each event is a line and an empty one
                await anext(lines)
            assert limits.standing(caller.key_id)["tokens"].remaining == 998
        await engine.hung_up.wait()
        while limits.standing(caller.key_id)["tokens"].remaining == 998:
            await asyncio.sleep(0.01)
    assert limits.standing(caller.key_id)["tokens"].remaining == 698


async def test_a_failed_answer_keeps_its_estimate(
    app: FastAPI, client: httpx.AsyncClient, engine: ScriptedEngine, settings: Settings, clock: Clock
) -> None:
    limited(app, clock, requests=10, tokens=100)
    engine.script = answers(b"", 500)
    failed = await client.post("/completions", json={**COMPLETE, "prompt": "x" * 80})
    assert failed.status_code == 503
    assert failed.headers["x-ratelimit-remaining-tokens"] == "80"
    assert failed.headers["x-ratelimit-remaining-requests"] == "9"


@pytest.mark.parametrize("stream", [True, False])
async def test_over_the_limit_is_a_429_that_says_when_to_come_again(
    app: FastAPI, client: httpx.AsyncClient, engine: ScriptedEngine, settings: Settings, clock: Clock, stream: bool
) -> None:
    limited(app, clock, requests=8)
    for _ in range(8):
        assert (await client.post("/completions", json=COMPLETE)).status_code == 200
    refused = await client.post("/completions", json={**COMPLETE, "stream": stream})
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert "Limit 8, Used 8, Requested 1. Please try again in 7.5s." in error["message"]
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("8", "7500")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(engine.seen) == 8


async def test_a_prompt_above_the_whole_limit_is_refused_for_good(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings
) -> None:
    limited(app, tokens=10)
    refused = await client.post("/completions", json={**COMPLETE, "prompt": "x" * 400})
    assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")
    assert "Limit 10, Requested 100." in refused.json()["error"]["message"]
    assert "retry-after" not in refused.headers


async def test_keys_of_one_project_do_not_share_a_limit(
    app: FastAPI, client: httpx.AsyncClient, client_of: ClientOf, stranger_key: str, settings: Settings, clock: Clock
) -> None:
    limited(app, clock, requests=1)
    assert (await client.post("/completions", json=COMPLETE)).status_code == 200
    assert (await client.post("/completions", json=COMPLETE)).status_code == 429
    assert (await client_of(stranger_key).post("/completions", json=COMPLETE)).status_code == 200


async def test_the_sdk_raises_its_rate_limit_error_or_waits(
    app: FastAPI, base_url: str, key: str, caller: Caller, settings: Settings
) -> None:
    """600 per minute: there is room again within a tenth of a second."""
    limits = limited(app, requests=600)
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as sdk:
        with pytest.raises(openai.RateLimitError) as refused:
            async with asyncio.timeout(60):
                while True:  # a busy machine may take longer than a tenth of a second
                    await _use_up(limits, caller.key_id)
                    await sdk.completions.create(model="luthier-tiny", prompt="Hello")
        assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
        assert 0 < float(refused.value.response.headers["retry-after-ms"]) <= 100
        await _use_up(limits, caller.key_id)
        patient = sdk.with_options(max_retries=5)
        answer = await patient.completions.with_raw_response.create(model="luthier-tiny", prompt="Hello")
        assert answer.parse().choices[0].text == "café"
        assert LIMIT_HEADERS - {name for name in LIMIT_HEADERS if name.endswith("tokens")} <= set(answer.headers)


async def _use_up(limits: RateLimits, key_id: str) -> None:
    """Asks until there is no room."""
    while limits.standing(key_id)["requests"].remaining:
        await limits.admit(asking(key_id=key_id), "acme")
