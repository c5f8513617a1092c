"""Every refusal is OpenAI's envelope, in OpenAI's words, with OpenAI's headers."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from starlette.types import Message

from service.api.app import create_app
from service.api.web import auth
from service.api.web.auth import KnownKeys
from service.api.web.bodies import PLAIN
from service.installation.context import Context
from service.installation.create import create_context
from service.operations import keys
from service.recipes.objective import OBJECTIVES
from service.settings.settings import Settings
from tests.conftest import ClientOf

GOOD: dict[str, Any] = {"model": "luthier-tiny", "training_file": "file-x"}
CREATE = "/fine_tuning/jobs"


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return body["error"]


@pytest.mark.parametrize(
    ("change", "param", "code", "message"),
    [
        ({"model": ...}, "model", "missing_required_parameter", "Missing required parameter: 'model'."),
        ({"modle": 1}, "modle", "unknown_parameter", "Unknown parameter: 'modle'."),
        ({"model": 3}, "model", "invalid_type", "expected a string, but got an integer instead."),
        ({"training_file": None}, "training_file", "invalid_type", "expected a string, but got null instead."),
        ({"seed": -1}, "seed", "integer_below_min_value", "Expected a value >= 0, but got -1 instead."),
        ({"seed": 2**31}, "seed", "integer_above_max_value", "Expected a value <= 2147483647"),
        ({"seed": True}, "seed", "invalid_type", "expected an integer, but got a boolean instead."),
        ({"suffix": ""}, "suffix", "string_below_min_length", "minimum length 1"),
        ({"suffix": "x" * 65}, "suffix", "string_above_max_length", "string with length 65 instead."),
        ({"suffix": "a/b"}, "suffix", "invalid_value", "string does not match pattern."),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type", "expected a string, but got an integer"),
        ({"metadata": dict.fromkeys("abcdefghijklmnopq", "")}, "metadata", "object_above_max_properties", "at most 16"),
        ({"integrations": [{"type": "wandb"}]}, "integrations[0].wandb", "missing_required_parameter", "Missing"),
        ({"integrations": [{}] * 6}, "integrations", "array_above_max_length", "array with length 6 instead."),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "integer_below_min_value", ">= 1"),
        ({"hyperparameters": {"n_epochs": "x"}}, "hyperparameters.n_epochs", "invalid_type", "'auto' or an integer"),
        (
            {"hyperparameters": {"learning_rate_multiplier": -0.5}},
            "hyperparameters.learning_rate_multiplier",
            "decimal_below_min_value",
            "Expected a value > 0",
        ),
        ({"method": {"type": "ppo"}}, "method.type", "invalid_value", "Supported values are: 'supervised', "),
        (
            {"method": {"type": "reinforcement"}},
            "method.type",
            "invalid_value",
            "Invalid value: 'reinforcement'. Supported values are: 'supervised', ",
        ),
        ({"tuning": {"type": "lora", "prompt": {}}}, "tuning.prompt", None, "the tuning's type is 'lora'"),
        ({"tuning": {"lora": {"r": 65}}}, "tuning.lora.r", None, "LoRA up to rank 64"),
        ({"model": "gpt-9"}, None, "model_not_available", "Model gpt-9 is not available for fine-tuning"),
        ({"model": "ft:luthier-tiny:o::x"}, None, "model_not_available", "o::x is not available for fine-tuning"),
        ({"model": "\ud800"}, "model", "invalid_value", "Invalid 'model': the text holds half a surrogate pair."),
        (
            {"tuning": {"type": "loreft", "loreft": {"first": 0, "last": 0}}},
            "tuning.loreft",
            "invalid_value",
            "Invalid 'tuning.loreft': 'first' and 'last' are both 0, so nothing would be edited.",
        ),
        ({"model": "a\0"}, "model", "invalid_value", "pattern"),
        ({"\ud800": 1}, None, None, "a key that holds half a surrogate pair"),
        ({"": 1}, "", "unknown_parameter", "Unknown parameter: ''."),
        ({"metadata": {"": 1}}, "metadata.", "invalid_type", "expected a string, but got an integer"),
        ({}, "training_file", None, "invalid training_file: file-x"),
    ],
)
async def test_a_wrong_job_is_refused_with_its_field_and_code(
    client: httpx.AsyncClient, change: dict[str, Any], param: str | None, code: str | None, message: str
) -> None:
    body = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    response = await client.post(CREATE, content=json.dumps(body), headers={"Content-Type": "application/json"})
    error = error_of(response)
    assert response.status_code == 400
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert message in error["message"]


async def test_a_refused_method_names_only_methods_that_are_not_refused(client: httpx.AsyncClient) -> None:
    refused = error_of(await client.post(CREATE, json={**GOOD, "method": {"type": "ppo"}}))
    named = re.findall(r"'(\w+)'", refused["message"].partition("Supported values are: ")[2])
    assert named == OBJECTIVES.names
    idle = {"type": "supervised", "reinforcement": {"grader": {}}}
    assert error_of(await client.post(CREATE, json={**GOOD, "method": idle}))["param"] == "training_file"


@pytest.mark.parametrize("given", [{}, {"input": "a", "messages": [{"role": "user", "content": "a"}]}])
async def test_an_object_that_is_wrong_as_a_whole_is_told_what_is_wrong(
    client: httpx.AsyncClient, given: dict[str, Any]
) -> None:
    error = error_of(await client.post("/classifications", json={"model": "luthier-tiny", **given}))
    assert error["message"] == "Invalid request: give either 'input' or 'messages'."
    assert (error["type"], error["param"]) == ("invalid_request_error", None)


@pytest.mark.parametrize(
    ("part", "code", "message"),
    [
        ({"type": "x"}, "invalid_value", "Invalid value: 'x'. Supported values are: 'text', 'image_url', "),
        ({"text": "a"}, "missing_required_parameter", "Missing required parameter: 'messages[0].content[0].type'."),
    ],
)
async def test_a_part_of_no_known_kind_is_named_by_its_type(
    client: httpx.AsyncClient, part: dict[str, str], code: str, message: str
) -> None:
    body = {"model": "luthier-tiny", "messages": [{"role": "user", "content": [part]}]}
    error = error_of(await client.post("/chat/completions", json=body))
    assert (error["param"], error["code"]) == ("messages[0].content[0].type", code)
    assert error["message"].startswith(message)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("path", [CREATE, "/completions"])
async def test_what_is_no_number_in_json_is_named(client: httpx.AsyncClient, path: str, word: str) -> None:
    body = f'{{"model": "luthier-tiny", "prompt": "a", "temperature": {word}}}'
    error = error_of(await client.post(path, content=body, headers={"Content-Type": "application/json"}))
    assert error["message"] == f"The body of your request has the value {word}, which JSON does not have."


async def test_a_number_beyond_all_floats_is_named_with_its_field(client: httpx.AsyncClient) -> None:
    body = '{"model": "a", "training_file": "b", "hyperparameters": {"learning_rate_multiplier": 1e999}}'
    error = error_of(await client.post(CREATE, content=body, headers={"Content-Type": "application/json"}))
    assert error["message"] == "Invalid 'hyperparameters.learning_rate_multiplier': expected a finite number."


@pytest.mark.parametrize("path, field", [("/embeddings", "input"), ("/completions", "prompt")])
@pytest.mark.parametrize("text", ["\ud800", ["a", "\ud800"]])
async def test_half_a_surrogate_pair_is_named_wherever_a_text_may_stand(
    client: httpx.AsyncClient, path: str, field: str, text: Any
) -> None:
    body = json.dumps({"model": "luthier-tiny", field: text})
    error = error_of(await client.post(path, content=body, headers={"Content-Type": "application/json"}))
    assert error["message"] == f"Invalid '{field}': the text holds half a surrogate pair."
    assert (error["param"], error["code"]) == (field, "invalid_value")


@pytest.mark.parametrize("body", [[], "a", 1, None])
@pytest.mark.parametrize("path", [CREATE, "/classifications"])
async def test_a_body_that_is_no_object_is_told_so(client: httpx.AsyncClient, path: str, body: Any) -> None:
    error = error_of(await client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"}))
    assert error["message"].startswith("The body of your request must be a JSON object")


@pytest.mark.parametrize(
    "body", [b"{", b'{"a": 1e}', b"\xff\xfe", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"], ids=range(5)
)
async def test_a_body_that_is_not_json_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post(CREATE, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["message"].startswith("We could not parse the JSON body")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_a_json_body_under_another_content_type_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    response = await client.post(CREATE, content=json.dumps(GOOD), headers={"Content-Type": kind})
    assert response.status_code == 400
    assert "Content-Type: application/json" in error_of(response)["message"]


async def test_a_json_body_beyond_its_limit_is_refused_while_it_comes_in(client: httpx.AsyncClient) -> None:
    response = await client.post(CREATE, json={"model": "x" * PLAIN.bytes})
    assert response.status_code == 413
    assert "at most" in error_of(response)["message"]


async def test_an_unknown_route_is_a_404_in_the_envelope(client: httpx.AsyncClient) -> None:
    for method, path in [("POST", "/x"), ("GET", "/files/a/b"), ("HEAD", "/nothing"), ("GET", "/files/")]:
        response = await client.request(method, path)
        assert response.status_code == 404
        if method != "HEAD":
            assert error_of(response)["message"] == f"Invalid URL ({method} /v1{path})"


async def test_a_wrong_method_is_a_405_that_names_the_right_ones(client: httpx.AsyncClient) -> None:
    response = await client.put("/files")
    assert response.status_code == 405
    assert error_of(response)["code"] == "method_not_supported"
    assert response.headers["allow"]


async def test_every_answer_carries_openais_headers_and_an_id_of_ours(client: httpx.AsyncClient) -> None:
    answers = [await client.get(path, headers={"X-Request-ID": "mine"}) for path in ("/models", "/files/x", "/nothing")]
    for answer in answers:
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["openai-version"] == "2020-10-01"
        assert int(answer.headers["openai-processing-ms"]) >= 0
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    assert answers[0].headers["openai-organization"] == "luthier"
    assert answers[0].headers["openai-project"].startswith("proj_")


async def test_a_mistake_of_ours_is_a_500_in_the_envelope_and_is_logged_without_user_text(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    async def broken() -> None:
        raise RuntimeError("the user's secret")

    app.add_api_route("/v1/broken", broken)
    with structlog.testing.capture_logs() as logs:
        response = await client.get("/broken")
    assert response.status_code == 500
    assert error_of(response)["type"] == "server_error"
    assert response.headers["x-request-id"].startswith("req_")
    assert [entry["error"] for entry in logs if entry["event"] == "request.crashed"] == ["RuntimeError"]
    assert "secret" not in str(logs) + response.text


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "sk-luthier-x"])
async def test_a_request_without_a_key_is_a_401(client: httpx.AsyncClient, header: str | None) -> None:
    del client.headers["Authorization"]
    response = await client.get("/models", headers={} if header is None else {"Authorization": header})
    assert response.status_code == 401
    assert "You didn't provide an API key" in error_of(response)["message"]


async def test_a_wrong_key_is_a_401_that_shows_only_its_ends(client_of: ClientOf, key: str) -> None:
    wrong = "sk-luthier-" + "a" * 40 + "bcde"
    response = await client_of(wrong).get("/models")
    assert response.status_code == 401
    assert error_of(response)["code"] == "invalid_api_key"
    assert "sk-luthi****bcde" in error_of(response)["message"]
    assert wrong not in response.text


async def test_an_unauthenticated_body_is_never_looked_at(client_of: ClientOf, key: str) -> None:
    response = await client_of("wrong").post(CREATE, content=b"{", headers={"Content-Type": "application/json"})
    assert response.status_code == 401


async def test_a_revoked_key_dies_when_the_cache_forgets_it(
    ctx: Context, app: FastAPI, client: httpx.AsyncClient
) -> None:
    now = 100.0
    app.state.known_keys = KnownKeys(ctx, clock=lambda: now)
    assert (await client.get("/models")).status_code == 200
    assert await keys.revoke_key(ctx, (await keys.list_keys(ctx))[0].id)
    now += auth.CACHE_SECONDS
    assert auth.CACHE_SECONDS <= 5
    assert (await client.get("/models")).status_code == 401


async def test_health_needs_no_key_and_names_what_is_away(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://luthier") as client:
        response = await client.get("/health")
        ready, alive = await client.get("/readyz"), await client.get("/livez")
    assert response.status_code == 200
    parts = {"status": "ok", "database": "ok", "storage": "ok"}
    assert response.json() == {**parts, "engines": {"http://127.0.0.1:1": "unavailable"}}
    assert (ready.status_code, ready.json()) == (200, parts)
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})


async def test_without_its_database_the_service_says_503(settings: Settings) -> None:
    ctx = create_context(settings.model_copy(update={"database_url": "sqlite+aiosqlite:////nowhere/luthier.db"}))
    app = create_app(ctx)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://luthier") as client:
        health = await client.get("/health")
        ready, alive = await client.get("/readyz"), await client.get("/livez")
        models = await client.get("/v1/models", headers={"Authorization": "Bearer sk-luthier-x"})
    await ctx.close()
    await asyncio.sleep(0.2)  # the threads of the failed connections still report to this loop
    assert (health.status_code, health.json()["database"]) == (503, "unavailable")
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert models.status_code == 503
    assert error_of(models)["type"] == "server_error"


async def test_the_document_is_served(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://luthier") as client:
        response = await client.get("/openapi.json")
    assert response.json()["info"]["title"] == "Luthier"


async def test_a_text_that_a_database_cannot_hold_is_no_crash(client: httpx.AsyncClient) -> None:
    answers: list[httpx.Response] = []
    answers.append(await client.get("/files/a%00b"))
    answers.append(await client.get("/fine_tuning/jobs", params={"after": "\0"}))
    form = {"file": ("a\0.jsonl", b"{}")}
    answers.append(await client.post("/files", files=form, data={"purpose": "fine-tune"}))
    assert all(answer.status_code in (200, 400, 404) for answer in answers), [answer.text for answer in answers]


async def test_a_request_that_the_server_ends_with_itself_gets_the_envelope(app: FastAPI) -> None:
    """uvicorn cancels what has not ended some seconds after SIGTERM."""

    async def upload(send: Callable[[Message], Awaitable[None]]) -> None:
        headers = [(b"authorization", b"Bearer sk-luthier-x"), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/fine_tuning/jobs", "raw_path": b"/v1/fine_tuning/jobs",
            "query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }  # fmt: skip
        await app(scope, never, send)

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    known_keys = app.state.known_keys
    app.state.known_keys = type("Slow", (), {"caller": staticmethod(lambda request: never())})()
    request = asyncio.create_task(upload(send))
    await asyncio.sleep(0.05)
    request.cancel()
    await asyncio.wait([request], timeout=5)
    app.state.known_keys = known_keys
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"])["error"]["message"] == "The server is shutting down. Please try again."
