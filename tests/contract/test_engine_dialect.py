"""The dialect between the gateway and engines: one suite for every engine, over a socket.

Only what the gateway relies on and vLLM promises too. The embedded engine's own promises (refusals, exact words) are in
`tests/unit/test_engine_*.py`.
"""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.given.engines import listening, load_tiny, local_store, make_engine, publish, save_adapter
from tests.servers.vllm import Vllm

MESSAGES = [{"role": "user", "content": "Write me a story"}]


@dataclass(frozen=True)
class Served:
    """An engine that listens. Greedy, its base and its two adapters answer differently."""

    url: str
    base: str
    adapters: tuple[str, str]
    context_tokens: int

    @property
    def models(self) -> tuple[str, ...]:
        return (self.base, *self.adapters)


@contextmanager
def embedded_engine(folder: Path) -> Iterator[Served]:
    """In a thread with its own event loop."""
    base, loaded = load_tiny(folder / "base")
    store = local_store(folder / "objects")
    ready, stop = threading.Event(), threading.Event()
    found: list[Served] = []

    async def serve() -> None:
        names = []
        for seed, publication in enumerate(("contraca", "contracb")):
            adapter = save_adapter(loaded, folder / publication, seed)
            names.append(await publish(store, base, loaded, adapter, publication))
        async with listening(make_engine(base, loaded, folder)) as url:
            found.append(Served(url, base.id, (names[0], names[1]), base.context_tokens))
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(60)
        yield found[0]
    finally:
        stop.set()
        thread.join(30)


@pytest.fixture(scope="module", params=["embedded", pytest.param("vllm", marks=pytest.mark.slow)])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if request.param == "vllm":
        server: Vllm = request.getfixturevalue("vllm")
        names = [server.publish(f"dialect{seed}", seed) for seed in range(2)]
        yield Served(server.url, server.base.id, (names[0], names[1]), server.base.context_tokens)
        return
    with embedded_engine(tmp_path_factory.mktemp("engine")) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60) as client:
        yield client


def complete(client: httpx.Client, model: str, **more: Any) -> dict[str, Any]:
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0} | more
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def text(client: httpx.Client, model: str, **more: Any) -> str:
    answer: str = complete(client, model, **more)["choices"][0]["text"]
    return answer


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_engine_is_healthy_and_lists_its_base(client: httpx.Client, served: Served) -> None:
    assert client.get("/health").status_code == 200
    models = client.get("/v1/models").json()
    assert models["object"] == "list"
    assert served.base in [model["id"] for model in models["data"]]
    assert "num_requests_running" in client.get("/metrics").text


def test_completion_has_openais_shape(client: httpx.Client, served: Served) -> None:
    answer = complete(client, served.adapters[0])
    assert (answer["object"], answer["model"]) == ("text_completion", served.adapters[0])
    [choice] = answer["choices"]
    assert choice["index"] == 0 and isinstance(choice["text"], str)
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 1 <= usage["completion_tokens"] <= 12


def test_chat_has_openais_shape(client: httpx.Client, served: Served) -> None:
    body = {"model": served.base, "messages": MESSAGES, "max_tokens": 5, "temperature": 0}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["object"] == "chat.completion"
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)


def test_names_it_does_not_hold_are_fetched_and_answer_for_themselves(client: httpx.Client, served: Served) -> None:
    alone = {model: text(client, model) for model in served.models}
    assert len(set(alone.values())) == 3
    models = [*served.models] * 4
    with ThreadPoolExecutor(len(models)) as pool:
        together = list(pool.map(lambda model: text(client, model), models))
    assert together == [alone[model] for model in models]


@pytest.mark.parametrize("place", ["base", "adapter"])
def test_streamed_completion_says_what_the_whole_one_says(client: httpx.Client, served: Served, place: str) -> None:
    model = served.base if place == "base" else served.adapters[1]
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, "stream": True}
    chunks = events(client.post("/v1/completions", json=body | {"stream_options": {"include_usage": True}}))
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert {chunk["model"] for chunk in chunks} == {model}
    said = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    whole = complete(client, model)
    assert said == whole["choices"][0]["text"]
    assert chunks[-1]["choices"] == []
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert chunks[-1]["usage"][count] == whole["usage"][count]


def test_streamed_chat_opens_with_the_role_and_ends_with_a_reason(client: httpx.Client, served: Served) -> None:
    body = {"model": served.base, "messages": MESSAGES, "max_tokens": 6, "temperature": 0, "stream": True}
    chunks = events(client.post("/v1/chat/completions", json=body))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert not any(chunk.get("usage") for chunk in chunks)


def test_stop_text_is_not_in_the_answer(client: httpx.Client, served: Served) -> None:
    def said(seed: int, **more: Any) -> dict[str, Any]:
        choice: dict[str, Any] = complete(client, served.base, max_tokens=64, temperature=1, seed=seed, **more)[
            "choices"
        ][0]
        return choice

    def readable(text: str) -> list[str]:
        """A random base says much that is no text at all."""
        pairs = [text[place : place + 2] for place in range(2, len(text) - 1)]
        return [pair for pair in pairs if pair.isascii() and pair.isprintable()]

    seed, whole = next((seed, whole) for seed in range(20) if readable(whole := said(seed)["text"]))
    stop = readable(whole)[0]
    answer = said(seed, stop=[stop])
    assert answer["text"] == whole[: whole.index(stop)]
    assert answer["finish_reason"] == "stop"


def test_seed_repeats_an_answer(client: httpx.Client, served: Served) -> None:
    first, second, other = (text(client, served.base, temperature=1, seed=seed) for seed in (1, 1, 2))
    assert first == second != other


def test_n_gives_as_many_choices(client: httpx.Client, served: Served) -> None:
    choices = complete(client, served.base, n=3, temperature=1)["choices"]
    assert sorted(choice["index"] for choice in choices) == [0, 1, 2]


def test_logprobs_come_in_both_shapes(client: httpx.Client, served: Served) -> None:
    legacy = complete(client, served.base, logprobs=2, max_tokens=4)["choices"][0]["logprobs"]
    assert {"tokens", "token_logprobs", "top_logprobs", "text_offset"} <= set(legacy)
    assert all(logprob <= 0 for logprob in legacy["token_logprobs"])
    body = {"model": served.base, "messages": MESSAGES, "max_tokens": 4, "logprobs": True, "top_logprobs": 2}
    chat = client.post("/v1/chat/completions", json=body).json()["choices"][0]["logprobs"]
    assert all({"token", "logprob", "bytes", "top_logprobs"} <= set(token) for token in chat["content"])


def test_token_array_is_a_prompt(client: httpx.Client, served: Served) -> None:
    answer = complete(client, served.base, prompt=[70, 71, 72, 73])
    assert answer["usage"]["prompt_tokens"] == 4


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_errors_have_a_status_and_an_envelope(client: httpx.Client, served: Served, path: str) -> None:
    def refused(**more: Any) -> tuple[int, str]:
        body = {"model": served.base, "prompt": "x", "messages": MESSAGES} | more
        body.pop("messages" if path == "/v1/completions" else "prompt")
        response = client.post(path, json=body)
        return response.status_code, response.json()["error"]["message"]

    assert refused(model="ft:nobody:has:this:name1234")[0] == 404
    assert refused(temperature=-1)[0] == 400
    long = "x " * served.context_tokens
    status, message = refused(prompt=long, messages=[{"role": "user", "content": long}])
    assert status == 400
    assert str(served.context_tokens) in message


def test_engine_survives_a_client_that_hangs_up(client: httpx.Client, served: Served) -> None:
    expected = text(client, served.adapters[0])
    body = {"model": served.adapters[0], "prompt": "Once", "max_tokens": 200, "temperature": 1, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_lines())
    assert text(client, served.adapters[0]) == expected
