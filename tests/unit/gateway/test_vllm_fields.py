"""What a base of vLLM is sent that the embedded engine refuses, and in which forms: OpenAI's, and no other."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings.settings import Settings
from tests.given.scripted_engine import ScriptedEngine, answers

CATALOGUE = """
[[base]]
id = "calls"
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { engine = "vllm", tunings = ["lora"], tool_call_parser = "hermes" }

[[base]]
id = "talks"
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { engine = "vllm", tunings = ["lora"] }
"""
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}
NAMED = {"type": "function", "function": {"name": "f"}}
UNSHAPED = {"type": "json_schema", "json_schema": {"name": "x"}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Bonn"}'}}


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    catalogue = tmp_path / "bases.toml"
    catalogue.write_text(CATALOGUE.replace("engine = ", f'engines = ["{engine.url}"], engine = '))
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url, catalogue=catalogue)


async def chat(client: httpx.AsyncClient, model: str = "calls", **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
    return await client.post("/chat/completions", json=body)


def param(response: httpx.Response) -> str | None:
    assert response.status_code == 400, response.text
    found: str | None = response.json()["error"]["param"]
    return found


FORMATS: list[dict[str, Any]] = [
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "x", "description": "d", "schema": SCHEMA, "strict": True}},
]


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"5": -100}},
        *({"response_format": value} for value in FORMATS),
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": NAMED},
    ],
)
async def test_what_vllm_does_is_sent_as_it_came(
    client: httpx.AsyncClient, engine: ScriptedEngine, fields: dict[str, Any]
) -> None:
    assert (await chat(client, **fields)).status_code == 200
    assert {name: engine.seen[0].get(name) for name in fields} == fields


async def test_tools_mean_auto_unless_it_is_said(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    assert (await chat(client, tools=[TOOL])).status_code == 200
    assert engine.seen[0]["tool_choice"] == "auto"


async def test_no_tools_are_no_fields(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    for choice in ("none", "auto"):
        assert (await chat(client, tools=[], tool_choice=choice, parallel_tool_calls=True)).status_code == 200
        assert not engine.seen[-1].keys() & {"tools", "tool_choice", "parallel_tool_calls"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [TOOL, {**TOOL, "defer_loading": True}]}, "tools[1].defer_loading"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"response_format": {"type": "structural_tag", "format": {}}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object", "json_schema": {}}}, "response_format.json_schema"),
        ({"response_format": UNSHAPED}, "response_format.json_schema.schema"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"store": True}, "store"),
    ],
)  # fmt: skip
async def test_other_forms_are_refused_by_name(
    client: httpx.AsyncClient, engine: ScriptedEngine, fields: dict[str, Any], named: str
) -> None:
    assert param(await chat(client, **fields)) == named
    assert engine.seen == []


@pytest.mark.parametrize("choice", ["auto", "required", NAMED, None])
async def test_without_a_parser_tools_are_refused_by_name(client: httpx.AsyncClient, choice: Any) -> None:
    assert param(await chat(client, "talks", tools=[TOOL], tool_choice=choice)) == "tools"


async def test_without_a_parser_tools_that_may_not_be_called_pass(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    assert (await chat(client, "talks", tools=[TOOL], tool_choice="none")).status_code == 200
    assert engine.seen[0]["tools"] == [TOOL]


async def test_a_conversation_with_calls_is_sent_as_it_came(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    messages = [
        {"role": "user", "name": "Ann", "content": "Where?"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Bonn"},
    ]
    assert (await chat(client, messages=messages)).status_code == 200
    assert engine.seen[0]["messages"] == messages
    echoed = [messages[0], {**messages[1], "content": None, "refusal": None, "annotations": []}, messages[2]]
    assert (await chat(client, messages=echoed)).status_code == 200
    assert engine.seen[1]["messages"] == messages


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"content": None}, "messages[0].content"),
        ({"content": None, "tool_calls": []}, "messages[0].content"),
        ({"tool_calls": [{**CALL, "type": "custom"}]}, "messages[0].tool_calls[0].type"),
        ({"tool_calls": [CALL, {"id": "x", "type": "function"}]}, "messages[0].tool_calls[1].function"),
        ({"tool_calls": [{**CALL, "function": {"name": "f"}}]}, "messages[0].tool_calls[0].function.arguments"),
        ({"content": "x", "function_call": {"name": "f", "arguments": ""}}, "messages[0].function_call"),
    ],
)
async def test_calls_of_another_form_are_refused_by_place(
    client: httpx.AsyncClient, message: dict[str, Any], named: str
) -> None:
    assert param(await chat(client, messages=[{"role": "assistant", **message}])) == named


async def test_vllms_refusals_are_ours(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.script = answers(
        b'{"error":{"message":"This model\'s maximum context length is 64 tokens.","type":"BadRequestError",'
        b'"param":"input_tokens","code":400}}',
        400,
    )
    error = (await chat(client)).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", None)
    engine.script = answers(
        b'{"error":{"message":"LoRA adapter \'x\' was found but could not be loaded.","type":"BadRequestError",'
        b'"param":null,"code":400}}',
        400,
    )
    assert (await chat(client)).status_code == 503


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("strict", [{}, {"strict": False}, {"strict": None}])
async def test_a_forced_call_is_held_to_its_schema_whatever_strict_says(
    client: httpx.AsyncClient, engine: ScriptedEngine, choice: Any, strict: dict[str, Any]
) -> None:
    loose = {"type": "function", "function": {"name": "f", "parameters": SCHEMA, **strict}}
    bare = {"type": "function", "function": {"name": "g"}}
    assert (await chat(client, tools=[loose, bare], tool_choice=choice)).status_code == 200
    assert [tool["function"] for tool in engine.seen[0]["tools"]] == [
        {"name": "f", "parameters": SCHEMA, "strict": True},
        {"name": "g", "parameters": {"type": "object", "properties": {}}, "strict": True},
    ]
    assert (await chat(client, tools=[loose])).status_code == 200
    assert engine.seen[1]["tools"] == [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, **strict}}]
