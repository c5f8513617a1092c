"""The middleware that looks for tools in chat completions, without vLLM: of bases whose templates show them or not."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from tests.given.engines import SHOWS_TOOLS
from tests.given.running_service import write_catalogue
from tests.given.tiny_models import make_tiny_base, write_chat_template
from workers.engines.vllm.tools import CHAT, LIMIT_BYTES, ToolsMiddleware, base_shows_tools

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "weather"}}
CHAT_BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": 'Which "tools" are there?'}]}


class Echo:
    """The application below: returns the body that it read."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def base_of_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the base that this process serves; its template, the toy's, shows no tools."""
    base = make_tiny_base(tmp_path / "base")
    monkeypatch.setenv("LUTHIER_CATALOGUE", str(write_catalogue(tmp_path / "bases.toml", base)))
    monkeypatch.setenv("LUTHIER_ENGINE_BASE", base.id)
    base_shows_tools.cache_clear()
    return tmp_path / "base"


def client(echo: Echo) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(ToolsMiddleware(echo)), base_url="http://vllm")


@pytest.mark.parametrize("choice", ["auto", "required", "none"])
async def test_tools_that_the_template_does_not_show_are_refused(
    echo: Echo, base_of_process: Path, choice: str
) -> None:
    async with client(echo) as asking:
        response = await asking.post(CHAT, json=CHAT_BODY | {"tools": [TOOL], "tool_choice": choice})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("tools", "unsupported_parameter")
    assert "chat template does not show them" in error["message"]
    assert echo.bodies == []


async def test_tools_that_the_template_shows_pass(echo: Echo, base_of_process: Path) -> None:
    write_chat_template(base_of_process, SHOWS_TOOLS)
    async with client(echo) as asking:
        response = await asking.post(CHAT, json=CHAT_BODY | {"tools": [TOOL]})
    assert response.json() == CHAT_BODY | {"tools": [TOOL]}


async def test_what_offers_no_tools_passes_as_it_came(echo: Echo) -> None:
    async def pieces() -> Any:
        for piece in (b'{"messages": ', b'"tools"', b"", b"}"):
            yield piece

    def never() -> bool:
        raise AssertionError("nobody asks what the template shows")

    middleware = ToolsMiddleware(echo, never)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(middleware), base_url="http://vllm") as asking:
        for body in (CHAT_BODY, CHAT_BODY | {"tools": []}, CHAT_BODY | {"tools": None}):
            assert (await asking.post(CHAT, json=body)).json() == body
        assert (await asking.post(CHAT, content=pieces())).content == b'{"messages": "tools"}'
        assert (await asking.post(CHAT, content=b'{"tools": [')).content == b'{"tools": ['  # vLLM's to refuse
        other = json.dumps({"prompt": "x", "tools": [TOOL]}).encode()
        assert (await asking.post("/v1/completions", content=other)).content == other


async def test_a_body_without_end_is_not_kept(echo: Echo) -> None:
    async def endless() -> Any:
        while True:
            yield b" " * 2**20

    async with client(echo) as asking:
        response = await asking.post(CHAT, content=endless())
    assert response.status_code == 413
    assert LIMIT_BYTES == 2**25 and echo.bodies == []
