"""No field of OpenAI's requests is ignored in silence: each is sent to the engine, kept by the gateway, or refused."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.embedding_create_params import EmbeddingCreateParams

from service.domain.errors import InvalidRequest
from service.gateway.fields import EMBEDDED, HARMLESS, NEUTRAL, VLLM, engine_fields
from service.installation.context import Context
from service.operations.keys import Caller
from service.recipes.base import Serving
from service.settings.settings import Settings
from tests.given.scripted_engine import ScriptedEngine
from tests.given.stored_jobs import add_job
from tests.given.stored_models import add_model

NEEDED: dict[str, dict[str, Any]] = {
    "/completions": {"model": "luthier-tiny", "prompt": "Hello"},
    "/chat/completions": {"model": "luthier-tiny", "messages": [{"role": "user", "content": "Hello"}]},
}
SDK = {
    "/completions": get_args(completion_params.CompletionCreateParams),
    "/chat/completions": get_args(chat_params.CompletionCreateParams),
}
ENDPOINTS = list(NEEDED)
DOCUMENT = Path(__file__).parents[3] / "openapi" / "inference.md"

# Values to try for each field, by what becomes of them.
SENT: dict[str, list[Any]] = {
    "max_tokens": [0, 16, 16.0],
    "temperature": [0, 2],
    "top_p": [0, 1],
    "n": [1, 128, 2.0],
    "stop": ["\n", ["a", "b", "c", "d"], []],
    "seed": [0, -(2**63), 2**63 - 1, 7.0],
    "presence_penalty": [-2, 2],
    "frequency_penalty": [-2, 2],
    "stream": [False],
}
KEPT: dict[str, list[Any]] = {"user": ["me"], "logit_bias": [{}]}
REFUSED: dict[str, list[Any]] = {
    "logit_bias": [{"5": 1}],
    "max_tokens": [-1, 1.5, True],
    "temperature": [2.1, "1"],
    "top_p": [-0.1],
    "n": [0, 129],
    "stop": [["a"] * 5, "", 5],
    "seed": [2**63],
    "presence_penalty": [-2.1],
    "frequency_penalty": [2.1],
    "stream": ["true"],
    "model": ["", None, 5, "\ud800"],
    "user": [5],
}
TABLE: dict[str, tuple[dict[str, list[Any]], dict[str, list[Any]], dict[str, list[Any]]]] = {
    "/completions": (
        SENT
        | {
            "prompt": ["x", ["x", "y"], [1, 2], [[1], [2]], "", [""], [1.0, 2.0]],
            "echo": [True],
            "logprobs": [0, 5, 5.0],
        },
        KEPT | {"best_of": [0, 1], "suffix": [""], "stream_options": [{"include_usage": True}, {}]},
        REFUSED
        | {
            "prompt": [[], [[]], [1, "x"], [-1], None, "\ud800"],
            "best_of": [2, 21],
            "suffix": ["end"],
            "logprobs": [6, True],
            "echo": [1],
        },
    ),
    "/chat/completions": (
        SENT | {"max_completion_tokens": [0, 16], "logprobs": [True, False]},
        KEPT
        | {
            "stream_options": [{"include_usage": True, "include_obfuscation": False}],
            "safety_identifier": ["x"],
            "metadata": [{"a": "b"}],
            "parallel_tool_calls": [True],
            "prompt_cache_key": ["x"],
            "prompt_cache_retention": ["24h"],
            "prompt_cache_options": [{"mode": "explicit"}],
            "tools": [[]],
            "functions": [[]],
            "tool_choice": ["none", "auto"],
            "function_call": ["none", "auto"],
            "response_format": [{"type": "text"}],
            "modalities": [["text"]],
            "service_tier": ["auto", "default"],
            "store": [False],
            "reasoning_effort": ["none"],
            "verbosity": ["medium"],
        },
        REFUSED
        | {
            "messages": [[], "x", None],
            "max_completion_tokens": [-1],
            "logprobs": [1],
            "top_logprobs": [0, 1, 21],
            "tools": [[{"type": "function", "function": {"name": "f"}}]],
            "functions": [[{"name": "f"}]],
            "tool_choice": ["required", {"type": "function", "function": {"name": "f"}}],
            "function_call": [{"name": "f"}],
            "response_format": [{"type": "json_object"}],
            "modalities": [["text", "audio"]],
            "service_tier": ["flex", "priority"],
            "store": [True],
            "reasoning_effort": ["low", "medium"],
            "verbosity": ["low"],
            "audio": [{"voice": "alloy", "format": "mp3"}],
            "moderation": [{"model": "omni-moderation-latest"}],
            "prediction": [{"type": "content", "content": "x"}],
            "web_search_options": [{}],
            "metadata": [{str(number): "x" for number in range(17)}],
            "safety_identifier": ["x" * 129],
        },
    ),
}


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: what is asked here is decided before and behind it."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url)


def sdk_fields(endpoint: str) -> set[str]:
    return {name for params in SDK[endpoint] for name in params.__required_keys__ | params.__optional_keys__}


async def post(client: httpx.AsyncClient, endpoint: str, **fields: Any) -> httpx.Response:
    """Not httpx's own JSON, which cannot carry half a surrogate pair."""
    body = json.dumps({**NEEDED[endpoint], **fields})
    return await client.post(endpoint, content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_field_of_the_sdk_is_in_the_table(endpoint: str) -> None:
    sent, kept, refused = TABLE[endpoint]
    assert sdk_fields(endpoint) == {*NEEDED[endpoint], *sent, *kept, *refused}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_every_field_is_sent_kept_or_refused(
    endpoint: str, client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    sent, kept, refused = TABLE[endpoint]
    for name, values in (sent | kept).items():
        for value in values:
            engine.seen.clear()
            response = await post(client, endpoint, **{name: value})
            assert response.status_code == 200, (name, value, response.text)
            assert (engine.seen[0].get(name) == value) == (name in sent), (name, value, engine.seen)
    for name, values in refused.items():
        for value in values:
            response = await post(client, endpoint, **{name: value})
            assert response.status_code == 400, (name, value, response.text)
            assert response.json()["error"]["param"].startswith(name), (name, value, response.text)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_null_means_not_given(endpoint: str, client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    nothing = dict.fromkeys(sdk_fields(endpoint) - NEEDED[endpoint].keys())
    assert (await post(client, endpoint, **nothing)).status_code == 200
    assert engine.seen == [{"path": f"/v1{endpoint}", **NEEDED[endpoint]}]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_what_is_not_openais_is_unknown(endpoint: str, client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    for name in ("chat_template", "prompt_embeds", "top_k", "guided_json", "documents"):
        error = (await post(client, endpoint, **{name: "x"})).json()["error"]
        assert error["code"] == "unknown_parameter", (name, error)
    error = (await post(client, endpoint, stream_options={"continuous_usage_stats": True})).json()["error"]
    assert (error["param"], error["code"]) == ("stream_options.continuous_usage_stats", "unknown_parameter")
    assert engine.seen == []


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_what_is_needed_must_be_there(endpoint: str, client: httpx.AsyncClient) -> None:
    for name in NEEDED[endpoint]:
        body = {other: value for other, value in NEEDED[endpoint].items() if other != name}
        error = (await client.post(endpoint, json=body)).json()["error"]
        assert (error["param"], error["code"]) == (name, "missing_required_parameter")


async def test_fields_must_agree(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    async def wrong(endpoint: str, **fields: Any) -> str | None:
        response = await post(client, endpoint, **fields)
        assert response.status_code == (400 if "error" in response.json() else 200)
        param: str | None = response.json().get("error", {}).get("param")
        return param

    assert await wrong("/completions", best_of=2, n=3) == "best_of"
    assert await wrong("/completions", best_of=3, n=2) == "best_of"
    assert await wrong("/completions", best_of=3, n=3) is None
    assert await wrong("/chat/completions", top_logprobs=2) == "top_logprobs"
    assert await wrong("/chat/completions", top_logprobs=2, logprobs=True) is None
    assert engine.seen[-1]["top_logprobs"] == 2
    assert await wrong("/chat/completions", max_tokens=1, max_completion_tokens=2) == "max_tokens"
    assert await wrong("/chat/completions", max_tokens=1, max_completion_tokens=1) is None
    assert "max_tokens" not in engine.seen[-1] and engine.seen[-1]["max_completion_tokens"] == 1


EMBEDDER = "ft:luthier-tiny:luthier:x:EEEEEEEE"
EMBEDDING_SENT: dict[str, list[Any]] = {
    "input": ["x", ["x", "y"], [1, 2], [[1], [2]], [1.0, 2.0]],
    "encoding_format": ["float", "base64"],
    "dimensions": [1, 384, 384.0],
}
EMBEDDING_REFUSED: dict[str, list[Any]] = {
    "input": ["", ["x", ""], [], [[]], [1, "x"], [-1], None, "\ud800", "x" * 300_000, [5] * 5000],
    "encoding_format": ["int8", 1],
    "dimensions": [0, 1.5, "384", True],
    "user": [5],
    "model": ["", None, "luthier-tiny"],
}


async def test_every_field_of_embeddings_is_sent_kept_or_refused(
    ctx: Context, caller: Caller, client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    await add_model(ctx, caller, (await add_job(ctx, caller)).id, EMBEDDER, task="embed")
    fields = EmbeddingCreateParams.__required_keys__ | EmbeddingCreateParams.__optional_keys__
    assert fields == {*EMBEDDING_SENT, *EMBEDDING_REFUSED}
    needed = {"model": EMBEDDER, "input": "Hello"}

    async def asked(**fields: Any) -> httpx.Response:
        engine.seen.clear()
        content = json.dumps(needed | fields)
        return await client.post("/embeddings", content=content, headers={"Content-Type": "application/json"})

    for name, values in EMBEDDING_SENT.items():
        for value in values:
            assert (await asked(**{name: value})).status_code == 200, (name, value)
            assert engine.seen == [{"path": "/v1/embeddings", **needed, name: value}]
    nothing = await asked(user="me", encoding_format=None, dimensions=None)
    assert nothing.status_code == 200 and engine.seen == [{"path": "/v1/embeddings", **needed}]
    for name, values in EMBEDDING_REFUSED.items():
        for value in values:
            response = await asked(**{name: value})
            assert response.status_code == 400, (name, value, response.text)
            assert response.json()["error"]["param"].startswith(name), (name, value, response.text)
    assert (await asked(documents=["x"])).json()["error"]["code"] == "unknown_parameter"
    generates = (await asked(model="luthier-tiny")).json()["error"]
    assert "call it at /v1/chat/completions or /v1/completions" in generates["message"]
    embeds = await client.post("/completions", json={"model": EMBEDDER, "prompt": "Hello"})
    assert embeds.json()["error"]["message"].endswith("call it at /v1/embeddings.")


def test_vectors_are_for_the_embedded_engine() -> None:
    with pytest.raises(InvalidRequest, match="'vllm', which serves this model's base, has no /v1/embeddings"):
        engine_fields("embeddings", {"input": "x"}, Serving(engine="vllm", tunings=frozenset({"lora"})))


TEXT = {"type": "text", "text": "Hello"}
CALL = {"name": "f", "arguments": "{}"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


async def test_messages_that_engines_read_pass(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "name": "Ann", "content": [TEXT, TEXT]},
        {"role": "assistant", "content": "Hi"},
        {"role": "tool", "tool_call_id": "call_1", "content": "5"},
        {"role": "function", "name": "f", "content": ""},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": CALL}]},
        {"role": "assistant", "content": "Let me see.", "function_call": CALL},
    ]
    assert (await post(client, "/chat/completions", messages=messages)).status_code == 200
    assert engine.seen[0]["messages"] == messages


async def test_an_answer_may_be_sent_back_as_it_came(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    empty: dict[str, Any] = {
        "refusal": None,
        "annotations": [],
        "tool_calls": [],
        "audio": None,
        "reasoning_content": None,
    }
    messages = [{"role": "assistant", "content": "Hi", **empty}, {"role": "user", "content": [{**TEXT}]}]
    assert (await post(client, "/chat/completions", messages=messages)).status_code == 200
    assert engine.seen[0]["messages"] == [{"role": "assistant", "content": "Hi"}, messages[1]]


async def test_reasoning_goes_to_the_engine_in_one_name(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    said = {"role": "assistant", "content": "Hi"}
    spellings = [
        {"reasoning_content": "Greet."},
        {"reasoning": "Greet."},
        {"reasoning": "Greet.", "reasoning_content": "Greet."},
    ]
    for spelling in spellings:
        messages = [said | spelling, {"role": "user", "content": "x"}]
        assert (await post(client, "/chat/completions", messages=messages)).status_code == 200
        assert engine.seen[-1]["messages"][0] == said | {"reasoning": "Greet."}


UNREADABLE: list[tuple[dict[str, Any], str]] = [
    ({"role": "user", "content": [TEXT, IMAGE]}, "messages[1].content[1]"),
    ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[1].content[0]"),
    ({"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[1].content[0]"),
    ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}, "messages[1].content[0]"),
    ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
    ({"role": "user", "content": [{"type": "poem", "poem": "x"}]}, "messages[1].content[0].type"),
    ({"role": "user", "content": []}, "messages[1].content"),
    ({"role": "user", "content": None}, "messages[1].content"),
    ({"role": "user", "content": "\ud800"}, "messages[1].content"),
    ({"role": "user"}, "messages[1].content"),
    ({"role": "assistant", "content": None, "tool_calls": []}, "messages[1].content"),
    ({"role": "assistant", "tool_calls": [{"id": "x", "type": "function"}]}, "messages[1].tool_calls[0].function"),
    ({"role": "assistant", "tool_calls": [{"id": "x", "type": "custom"}]}, "messages[1].tool_calls[0].type"),
    ({"role": "assistant", "function_call": {"name": "f"}}, "messages[1].function_call.arguments"),
    ({"role": "assistant", "content": "x", "refusal": "No"}, "messages[1].refusal"),
    ({"role": "poet", "content": "x"}, "messages[1].role"),
    ({"role": "user", "content": "x", "reasoning_content": "x"}, "messages[1].reasoning_content"),
    (
        {"role": "assistant", "content": "x", "reasoning": "x", "reasoning_content": "y"},
        "messages[1].reasoning_content",
    ),
    ({"role": "user", "content": "x", "mood": "x"}, "messages[1].mood"),
]


async def test_messages_that_engines_cannot_read_are_refused(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    for message, param in UNREADABLE:
        response = await post(client, "/chat/completions", messages=[{"role": "user", "content": "x"}, message])
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert engine.seen == []


def test_the_document_tells_the_same() -> None:
    pattern = r"^\| `(\w+)` \| (both|chat|completions) \| (\w+) \| (\w+) \|"
    told = {name: rest for name, *rest in re.findall(pattern, DOCUMENT.read_text(), re.MULTILINE)}
    known = {"completions": sdk_fields("/completions"), "chat": sdk_fields("/chat/completions")}
    assert told.keys() == known["completions"] | known["chat"]
    for name, (endpoints, *places) in told.items():
        homes = [home for home, fields in known.items() if name in fields]
        assert endpoints == ("both" if len(homes) == 2 else homes[0]), name
        for engine, place in zip((EMBEDDED, VLLM), places, strict=True):
            honoured = all(name in {"completions": engine.completions, "chat": engine.chat}[home] for home in homes)
            neutral = name in NEUTRAL or name == "best_of"
            expected = "honoured" if honoured or name == "model" else "harmless" if name in HARMLESS else "neutral"
            assert place == (expected if neutral or expected != "neutral" else "refused"), name


@pytest.mark.parametrize("order", [("tool_choice", "tools"), ("tools", "tool_choice")])
async def test_tools_are_named_before_their_choice_and_with_the_engine_that_has_them(
    client: httpx.AsyncClient, engine: ScriptedEngine, order: tuple[str, str]
) -> None:
    asked = {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}
    error = (await post(client, "/chat/completions", **{name: asked[name] for name in order})).json()["error"]
    assert error["param"] == "tools"
    assert "'vllm'" in error["message"] and "serving.engine" in error["message"]
    shaped = await post(client, "/chat/completions", response_format={"type": "json_object"})
    assert "'vllm'" in shaped.json()["error"]["message"]
    audio = await post(client, "/chat/completions", modalities=["audio"])
    assert "serving.engine" not in audio.json()["error"]["message"]  # nobody here has it
