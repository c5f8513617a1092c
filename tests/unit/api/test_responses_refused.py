"""What POST /v1/responses refuses is refused as by chat completions, in the words of the request that was sent."""

from pathlib import Path
from typing import Any, get_type_hints

import httpx
import orjson
import pytest
from fastapi.routing import APIRoute

from service.api.direct import DIRECT
from service.api.routes import inference, responses
from service.settings.settings import Settings
from tests.given.responses_by_http import ASK, CATALOGUE, TOOL
from tests.given.scripted_engine import ScriptedEngine, answers


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: what is asked here is decided before and behind it."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    catalogue = tmp_path / "bases.toml"
    catalogue.write_text(CATALOGUE)
    return Settings(data_dir=tmp_path / "data", engine_urls=engine.url, catalogue=catalogue)


async def test_an_engines_error_names_what_the_caller_sent(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    refusal = {"message": "messages[1].content[0] is too long for 'max_completion_tokens'.", "code": 400}
    engine.script = answers(orjson.dumps({"error": {**refusal, "param": "messages[1].content[0]"}}), 400)
    part = {"type": "input_text", "text": "Hello"}
    items = [{"role": "developer", "content": "Short."}, {"role": "user", "content": [part]}]
    response = await client.post("/responses", json={**ASK, "input": items})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "input[1].content[0]")
    assert error["message"] == "input[1].content[0] is too long for 'max_output_tokens'."


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tools": [TOOL], "tool_choice": "none"}, "tools"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"text": {"verbosity": "high"}}, "text.verbosity"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"service_tier": "flex"}, "service_tier"),
    ],
)
async def test_what_an_engine_cannot_do_is_refused_as_chat_completions_do(
    client: httpx.AsyncClient, engine: ScriptedEngine, fields: dict[str, Any], param: str
) -> None:
    response = await client.post("/responses", json={**ASK, "model": "embedded", **fields})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert "messages" not in error["message"] and "response_format" not in error["message"]
    assert engine.seen == []


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"type": "xml"}, "text.format.type"),
        ({}, "text.format.type"),
        ({"type": "json_schema", "schema": {}}, "text.format.name"),
        ({"type": "json_schema", "name": "n"}, "text.format.schema"),
        ({"type": "json_schema", "name": "n", "schema": {}, "depth": 1}, "text.format.depth"),
        ({"type": "json_object", "name": "n"}, "text.format.name"),
    ],
)
async def test_a_wrong_format_is_named_as_it_was_sent(
    client: httpx.AsyncClient, engine: ScriptedEngine, wanted: dict[str, Any], param: str
) -> None:
    error = (await client.post("/responses", json={**ASK, "text": {"format": wanted}})).json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert "response_format" not in error["message"]
    assert engine.seen == []


async def test_a_value_that_chat_completions_do_not_have_is_refused(
    client: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    error = (response := await client.post("/responses", json={**ASK, "service_tier": "ultrafast"})).json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", "service_tier")
    assert engine.seen == []


async def test_the_limits_of_chat_completions_hold() -> None:
    kinds = {type(route) for route in inference.router.routes}
    assert {type(route) for route in responses.router.routes} == kinds


async def test_every_request_for_an_engine_is_called_as_it_is_declared() -> None:
    declared = [
        route
        for router in (inference.router, responses.router)
        for route in router.routes
        if isinstance(route, APIRoute) and route.body_field is not None
    ]
    assert {f"/v1{route.path}": (route.endpoint, get_type_hints(route.endpoint)["body"]) for route in declared} == {
        path: (direct.call, direct.body) for path, direct in DIRECT.items()
    }


async def test_only_models_that_exist_reach_an_engine(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    response = await client.post("/responses", json={**ASK, "model": "ft:tiny:luthier::gone"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert engine.seen == []
