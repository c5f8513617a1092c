"""The middleware of vLLM's server, without vLLM: which routes it has, and that it drains before vLLM ends."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from workers.engines.vllm.middleware import DRAIN_SIGNAL, DrainingMiddleware, Refused


class Server:
    """The application below the middleware: responds once `ready` is set."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.seen.append(scope["path"])
        await self.ready.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """SIGTERMs of this process, which the middleware sends to end vLLM."""
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> Any:
    middleware = DrainingMiddleware(server)

    async def nothing(message: Message | None = None) -> Message:
        return {}

    await middleware({"type": "lifespan"}, nothing, nothing)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(middleware), base_url="http://vllm") as client:
        yield client
    asyncio.get_running_loop().remove_signal_handler(DRAIN_SIGNAL)


async def test_only_routes_that_the_gateway_needs_are_open(client: httpx.AsyncClient, server: Server) -> None:
    server.ready.set()
    for path in ("/v1/completions", "/v1/chat/completions"):
        assert (await client.post(path)).status_code == 200
    for path in ("/v1/load_lora_adapter", "/adapters", "/v1/completions/", "/", "/tokenize"):
        assert (await client.post(path)).status_code == 404
    assert server.seen == ["/v1/completions", "/v1/chat/completions"]


async def test_a_draining_server_finishes_running_requests_and_then_ends(
    client: httpx.AsyncClient, server: Server, ended: list[int]
) -> None:
    running = asyncio.create_task(client.post("/v1/completions"))
    while not server.seen:
        await asyncio.sleep(0.01)
    signal.raise_signal(DRAIN_SIGNAL)
    await asyncio.sleep(0.05)
    refused = await client.post("/v1/completions")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, 503)
    assert (await client.get("/health")).status_code == 503
    await asyncio.sleep(0.3)
    assert ended == [] and not running.done()
    server.ready.set()
    assert (await running).content == b"done"
    await asyncio.sleep(0.3)
    assert ended == [signal.SIGTERM]


async def test_an_idle_server_ends_at_once(client: httpx.AsyncClient, ended: list[int]) -> None:
    signal.raise_signal(DRAIN_SIGNAL)
    await asyncio.sleep(0.4)
    assert ended == [signal.SIGTERM]


async def test_a_refusal_of_the_plugin_becomes_its_response(ended: list[int]) -> None:
    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        raise Refused(503, "adapter_unusable", "It cannot be loaded.")

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(DrainingMiddleware(refusing)), base_url="http://vllm"
    ) as client:
        answer = await client.post("/v1/completions")
    assert answer.status_code == 503
    assert answer.json()["error"] | {"type": ""} == {
        "message": "It cannot be loaded.", "type": "", "param": None, "code": "adapter_unusable"
    }  # fmt: skip
