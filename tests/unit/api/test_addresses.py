"""How clients of other services find the API: other paths and headers, HEAD, web pages of other origins."""

from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.installation.context import Context
from tests.given.files_by_http import upload
from tests.given.jobs_by_http import create

PAGE = {"Origin": "https://app.example.com"}
ASKS = PAGE | {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,x-stainless-os",
}


def at(app: FastAPI, path: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://luthier{path}")


async def test_azures_prefix_and_header_work_like_the_apis_own(app: FastAPI, key: str) -> None:
    async with at(app, "/openai/v1") as azure:
        azure.headers["api-key"] = key
        id = (await upload(azure))["id"]
        assert (await azure.get(f"/files/{id}")).json()["id"] == id
        assert (await azure.get("/models", params={"api-version": "preview"})).status_code == 200
        assert (await azure.get("/models", headers={"api-key": "sk-wrong"})).status_code == 401
        both = {"Authorization": "Bearer sk-wrong", "api-key": key}
        assert (await azure.get("/models", headers=both)).status_code == 401


async def test_a_key_for_metrics_may_come_in_either_header(app: FastAPI, key: str) -> None:
    async with at(app) as client:
        assert (await client.get("/metrics", headers={"api-key": key})).status_code == 403
        assert (await client.get("/metrics")).status_code == 401


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/models", "base URL that ends with /v1"),
        ("/chat/completions", "base URL that ends with /v1"),
        ("/v1/v1/models", "use /v1/models"),
        ("/openai/deployments/gpt-4o/chat/completions", "/openai/v1"),
    ],
)
async def test_a_path_beside_the_api_says_where_it_is(app: FastAPI, path: str, says: str) -> None:
    async with at(app) as client:
        for method in ("GET", "POST"):
            response = await client.request(method, path)
            assert response.status_code == 404
            assert says in response.json()["error"]["message"]
        assert (await client.head(path)).status_code == 404


async def test_the_root_says_where_the_api_is(app: FastAPI) -> None:
    async with at(app) as client:
        found = (await client.get("/")).json()
        assert (found["api"], found["openapi"]) == ("/v1", "/openapi.json")
        assert (await client.get(found["health"])).status_code == 200
        head = await client.head("/")
    assert (head.status_code, head.content) == (200, b"")


async def test_head_is_a_get_without_its_body(app: FastAPI, client: httpx.AsyncClient, base_url: str) -> None:
    job = await create(client)
    events = f"/fine_tuning/jobs/{job['id']}/events"
    paths = {"/models": 200, "/models/nothing": 404, f"/files/{job['training_file']}/content": 200, events: 200}
    async with httpx.AsyncClient(base_url=base_url, headers=client.headers) as served:
        for path, status in paths.items():
            get, head = await served.get(path), await served.head(path)
            assert (head.status_code, get.status_code, head.content) == (status, status, b"")
            assert head.headers["content-type"] == get.headers["content-type"]
            assert head.headers["content-length"] == get.headers["content-length"]
        stream = await served.head(f"{events}?stream=true", timeout=20)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert (await served.head("/files", headers={"Authorization": ""})).status_code == 401


async def test_no_page_may_call_the_api_unless_a_setting_names_it(app: FastAPI, key: str) -> None:
    async with at(app, "/v1") as client:
        assert (await client.options("/files", headers=ASKS)).status_code == 405
        answer = await client.get("/models", headers=PAGE | {"Authorization": f"Bearer {key}"})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_that_a_setting_names_may_call_the_api(ctx: Context, key: str) -> None:
    opened = ctx.settings.model_copy(update={"cors_origins": "https://app.example.com/, http://localhost:3000"})
    app = create_app(replace(ctx, settings=opened))
    async with at(app, "/v1") as client:
        asked = await client.options("/files", headers=ASKS)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == PAGE["Origin"]
        assert "x-stainless-os" in asked.headers["access-control-allow-headers"]
        for bearer, status in ((key, 200), ("sk-wrong", 401)):
            answer = await client.get("/models", headers=PAGE | {"Authorization": f"Bearer {bearer}"})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE["Origin"])
            assert "x-request-id" in answer.headers["access-control-expose-headers"]
        foreign = await client.options("/files", headers=ASKS | {"Origin": "https://elsewhere.example.com"})
        assert "access-control-allow-origin" not in foreign.headers
