"""Answers as they come: the same as whole ones, for several at once, through failures and hang-ups."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, NotFoundError
from torch import nn

from service.recipes.base import Base
from tests.given.engines import calling, listening, load_tiny, local_store, make_engine, publish, save_adapter
from workers.engines.embedded.engine import Engine, EngineLimits
from workers.model.load import LoadedBase

pytestmark = pytest.mark.slow

POISON = 200  # a token at which the model of these tests fails


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[Base, LoadedBase]:
    base, loaded = load_tiny(tmp_path / "base")
    loaded.model.register_forward_pre_hook(_fail_at_poison, with_kwargs=True)
    return base, loaded


@pytest.fixture
def engine(tiny: tuple[Base, LoadedBase], tmp_path: Path) -> Engine:
    return make_engine(*tiny, tmp_path, EngineLimits(batch_rows=4))


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(engine) as client:
        yield client


def _fail_at_poison(model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    if (kwargs["input_ids"] == POISON).any():
        raise RuntimeError("the model cannot compute this token")


def body(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": "Once", "temperature": 0, "max_tokens": 40} | more


def parse(stream: str) -> list[dict[str, Any]]:
    """The events of a stream that ends as OpenAI's do."""
    *lines, done, nothing = stream.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def wait_for_metric(client: httpx.AsyncClient, metric: str, wanted: int) -> None:
    """Until the engine shows that number."""
    async with asyncio.timeout(20):
        while True:
            found = re.search(rf"luthier_engine_{metric}\{{.*\}} (\d+)", (await client.get("/metrics")).text)
            assert found is not None
            if int(found[1]) == wanted:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "more", [{}, {"temperature": 1.3, "seed": 5, "n": 3}, {"stop": "\ufffd\ufffd"}, {"echo": True, "logprobs": 2}]
)
async def test_streamed_completion_equals_the_whole_one(client: httpx.AsyncClient, more: dict[str, Any]) -> None:
    whole = (await client.post("/v1/completions", json=body(**more))).json()
    response = await client.post("/v1/completions", json=body(**more, stream=True))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = parse(response.text)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)
    for expected in whole["choices"]:
        parts = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == expected["index"]]
        assert "".join(part["text"] for part in parts) == expected["text"]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [expected["finish_reason"]]
        if "logprobs" in more:
            for column, values in expected["logprobs"].items():
                assert [value for part in parts for value in part["logprobs"][column]] == values


async def test_streamed_chat_has_openais_chunks(client: httpx.AsyncClient) -> None:
    ask = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 12}
    whole = (await client.post("/v1/chat/completions", json=ask | {"logprobs": True})).json()
    streamed = ask | {"logprobs": True, "stream": True, "stream_options": {"include_usage": True}}
    chunks = parse((await client.post("/v1/chat/completions", json=streamed)).text)
    opening, *deltas, ending, closing = chunks
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert ending["choices"][0]["delta"] == {}
    assert ending["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    said = "".join(chunk["choices"][0]["delta"]["content"] for chunk in deltas)
    assert said == whole["choices"][0]["message"]["content"]
    logprobs = [entry for chunk in deltas for entry in chunk["choices"][0]["logprobs"]["content"]]
    assert logprobs == whole["choices"][0]["logprobs"]["content"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert (closing["choices"], closing["usage"]) == ([], whole["usage"])
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


async def test_newcomer_does_not_wait_for_a_long_answer(engine: Engine) -> None:
    async with listening(engine) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        slow = asyncio.create_task(client.post("/v1/completions", json=body(max_tokens=250, n=3, temperature=1)))
        await wait_for_metric(client, "num_requests_running", 3)
        quick = await client.post("/v1/completions", json=body(max_tokens=1))
        assert quick.status_code == 200
        assert not slow.done()
        await slow


async def test_one_large_request_does_not_keep_others_out(engine: Engine) -> None:
    async with listening(engine) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        large = asyncio.create_task(client.post("/v1/completions", json=body(max_tokens=30, n=60)))
        await wait_for_metric(client, "num_requests_running", 3)  # one row of four stays free for another
        assert (await client.post("/v1/completions", json=body(max_tokens=1))).status_code == 200
        assert not large.done()
        assert len((await large).json()["choices"]) == 60


@pytest.mark.parametrize("stream", [True, False])
async def test_hang_up_ends_the_row_and_leaves_its_neighbours(engine: Engine, stream: bool) -> None:
    async with listening(engine) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        alone = (await client.post("/v1/completions", json=body(max_tokens=120))).json()["choices"]
        neighbour = asyncio.create_task(client.post("/v1/completions", json=body(max_tokens=120)))
        await wait_for_metric(client, "num_requests_running", 1)
        long = body(max_tokens=250, n=3, temperature=1, seed=1, stream=stream)
        leaving = asyncio.create_task(_start(url, long))
        await wait_for_metric(client, "num_requests_running", 4)
        leaving.cancel()
        await asyncio.wait([leaving])
        await wait_for_metric(client, "num_requests_running", 1)
        assert not neighbour.done()
        assert (await neighbour).json()["choices"] == alone


async def _start(url: str, json: dict[str, Any]) -> None:
    """A client of its own, so that cancelling closes its connection."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=30) as client,
        client.stream("POST", "/v1/completions", json=json) as response,
    ):
        async for _ in response.aiter_bytes():
            pass


async def test_prompt_that_fails_harms_nobody_else(client: httpx.AsyncClient) -> None:
    expected = (await client.post("/v1/completions", json=body())).json()["choices"]
    good, bad = await asyncio.gather(
        client.post("/v1/completions", json=body()), client.post("/v1/completions", json=body(prompt=[POISON]))
    )
    assert good.json()["choices"] == expected
    assert bad.status_code == 500
    error = bad.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "generation_failed", None)


async def test_failure_within_a_batch_ends_its_requests_and_the_engine_lives_on(
    client: httpx.AsyncClient, tiny: tuple[Base, LoadedBase]
) -> None:
    expected = (await client.post("/v1/completions", json=body())).json()["choices"]
    failing = body(temperature=2, n=4, max_tokens=200, seed=1)  # one of 800 hot tokens is the poison
    response = await client.post("/v1/completions", json=failing)
    assert response.status_code == 500
    events = parse((await client.post("/v1/completions", json=failing | {"stream": True})).text)
    assert events[-1]["error"]["code"] == "generation_failed"
    assert (await client.post("/v1/completions", json=body())).json()["choices"] == expected
    assert (await client.get("/health")).status_code == 200


async def test_official_sdk_can_call_it(tiny: tuple[Base, LoadedBase], tmp_path: Path) -> None:
    base, loaded = tiny
    engine = make_engine(base, loaded, tmp_path)
    folder = save_adapter(loaded, tmp_path / "adapter", 1)
    name = await publish(local_store(tmp_path / "objects"), base, loaded, folder, "abcdefgh")
    async with listening(engine) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as sdk:
        completion = await sdk.completions.create(model=name, prompt="Once", max_tokens=5, temperature=0, logprobs=2)
        assert completion.usage is not None and completion.usage.completion_tokens == 5
        assert completion.model == name
        stream = await sdk.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=5, stream=True, n=2,
            seed=1,
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
        assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}
        assert name in [model.id async for model in sdk.models.list()]
        with pytest.raises(NotFoundError):
            await sdk.completions.create(model="ft:tiny:acme::nowhere1", prompt="x")
