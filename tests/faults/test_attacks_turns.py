"""One project's requests never keep another's waiting, and a client that reads nothing holds nothing."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web
from starlette.types import ASGIApp, Message

from service.settings.settings import Settings
from tests.given.engines import load_tiny, local_store, make_engine, publish, save_adapter
from tests.given.scripted_engine import COMPLETION, ScriptedEngine
from workers.engines.embedded.app import create_engine_app
from workers.engines.embedded.engine import EngineLimits

ROWS = 8
CATALOGUE = """
[[base]]
id = "tiny"
source = "nowhere"
context_tokens = 64
learning_rate = { lora = 1e-3 }
serving = { tunings = ["lora"] }
"""


@pytest.fixture
def database_url() -> str:
    """The embedded database alone: nothing here reaches it but keys."""
    return ""


@pytest.fixture
def settings(tmp_path: Path, engine: ScriptedEngine) -> Settings:
    (tmp_path / "bases.toml").write_text(CATALOGUE)
    return Settings(
        data_dir=tmp_path / "data",
        engine_urls=engine.url,
        catalogue=tmp_path / "bases.toml",
        engine_batch_rows=ROWS,
        project_requests=100,
    )


class FullEngine:
    """An engine with ROWS rows: its long answers end when the test says so, short ones as soon as they have a row."""

    def __init__(self) -> None:
        self.rows = asyncio.Semaphore(ROWS)
        self.end = asyncio.Event()
        self.most_rows = 0

    async def script(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        for _ in range(min(body.get("n", 1), ROWS - ROWS // 4)):  # as the embedded engine's batcher
            await self.rows.acquire()
        if body["max_tokens"] > 2:
            await self.end.wait()
        return web.Response(body=COMPLETION, content_type="application/json")


@pytest.mark.parametrize(("requests", "n"), [(90, 1), (12, 128)])
async def test_a_short_answer_of_another_project_does_not_wait(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, engine: ScriptedEngine, requests: int, n: int
) -> None:
    full = FullEngine()
    engine.script = full.script
    long = {"model": "tiny", "prompt": "a", "max_tokens": 60, "n": n, "temperature": 1}
    busy = [asyncio.create_task(client.post("/completions", json=long)) for _ in range(requests)]
    while not engine.seen:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    async with asyncio.timeout(10):
        short = await stranger.post("/completions", json={"model": "tiny", "prompt": "b", "max_tokens": 2})
    assert short.status_code == 200
    assert not any(task.done() for task in busy)
    for _ in range(requests * 8):
        full.rows.release()
    full.end.set()
    assert {response.status_code for response in await asyncio.gather(*busy)} == {200}


async def test_more_requests_than_a_project_may_have_are_a_429_with_the_number(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    full = FullEngine()
    engine.script = full.script
    long = {"model": "tiny", "prompt": "a", "max_tokens": 60}
    sent = [asyncio.create_task(client.post("/completions", json=long)) for _ in range(103)]
    refused: Sequence[httpx.Response] = []
    async with asyncio.timeout(10):
        while len(refused) < 3:
            await asyncio.sleep(0.01)
            refused = [task.result() for task in sent if task.done()]
    assert {response.status_code for response in refused} == {429}
    assert "100 requests in progress, which is the limit" in refused[0].text
    full.end.set()
    for _ in range(100):
        full.rows.release()
    assert sum(response.status_code == 200 for response in await asyncio.gather(*sent)) == 100


async def test_a_prompt_that_cannot_fit_reaches_no_engine(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    text = "a" * (64 * 32 + 1)
    chat = {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
    tools = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", text: 1}]}
    for path, body in [
        ("/completions", {"model": "tiny", "prompt": text}),
        ("/completions", {"model": "tiny", "prompt": ["a", text]}),
        ("/completions", {"model": "tiny", "prompt": [1] * 65}),
        ("/chat/completions", chat),
        ("/chat/completions", tools),
    ]:
        response = await client.post(path, json=body)
        assert response.json()["error"]["code"] == "context_length_exceeded", response.text
    assert engine.seen == []
    assert (await client.post("/completions", json={"model": "tiny", "prompt": text[:-1]})).status_code == 200


async def test_the_sequences_of_one_request_are_bounded(client: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    response = await client.post("/completions", json={"model": "tiny", "prompt": ["a"] * 17, "n": 128})
    assert (response.status_code, engine.seen) == (400, [])
    assert "at most 2048, but is 2176" in response.text


class Unread:
    """A client that takes the head of a response and its first event, and nothing more."""

    def __init__(self, app: ASGIApp, body: dict[str, Any]) -> None:
        self._app = app
        self._body = orjson.dumps(body)
        self._sent: list[Message] = []
        self._gone = asyncio.Event()
        self.task = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(self._body)).encode())]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/completions", "raw_path": b"/v1/completions",
            "query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._body:
            body, self._body = self._body, b""
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._sent.append(message)
        if len(self._sent) > 1:
            await self._gone.wait()

    async def hang_up(self) -> None:
        self._gone.set()
        await self.task


async def test_an_adapter_is_free_with_its_last_token_though_nobody_reads(tmp_path: Path) -> None:
    base, loaded = load_tiny(tmp_path / "base")
    names = [
        await publish(
            local_store(tmp_path / "objects"), base, loaded, save_adapter(loaded, tmp_path / name, seed), name
        )
        for seed, name in enumerate(["loraaaaa", "lorabbbb"])
    ]
    engine = make_engine(base, loaded, tmp_path, EngineLimits(resident_adapters=1))
    app = create_engine_app(engine)
    transport = httpx.ASGITransport(app)
    async with engine.running(), httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        asked = {"prompt": "Once", "max_tokens": 20, "temperature": 0}
        unread = Unread(app, {"model": names[0], "stream": True, **asked})
        while names[0] not in engine.residents.names:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            response = await client.post("/v1/completions", json={"model": names[1], **asked})
        assert response.status_code == 200, response.text
        assert engine.residents.names == [names[1]]
        assert not unread.task.done()
        await unread.hang_up()
