"""The embedded engine's server: the part of vLLM's OpenAI-like HTTP API that the gateway uses.

    POST /v1/completions, /v1/chat/completions    JSON, or server-sent events with `stream`
    POST /v1/classifications, /v1/embeddings      JSON
    GET  /v1/models, /health, /metrics

`luthier-worker engine` starts it. Whoever has the installation's engine key may call every model: it must listen on a
private network only.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing

import orjson
import structlog
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.domain.errors import LuthierError
from service.installation.engine_key import engine_key
from service.installation.storage import open_storage
from service.processes.http_server import ConnectionLimits, HttpServer, serving
from service.recipes.catalogue import read_catalogue
from service.settings.settings import Settings
from workers.engines.embedded.engine import Engine, EngineLimits
from workers.engines.embedded.metrics import CONTENT_TYPE, render_metrics
from workers.engines.embedded.parse import Order
from workers.engines.embedded.replies import ChatReply, CompletionReply, Json, Reply, classification, embeddings
from workers.engines.embedded.streaming import ClientGone, ReplyStream, error_body, events, unless_gone, whole
from workers.engines.embedded.wire import (
    ChatRequest,
    ClassificationRequest,
    CompletionRequest,
    EmbeddingRequest,
    explain,
)
from workers.model.load import choose_device, load_or_explain

log = structlog.get_logger()
BODY_LIMIT_BYTES = 32 * 1024 * 1024
CLIENT_CLOSED = 499  # nginx's status; nobody receives it
SHUTDOWN_SECONDS = 10  # for responses in progress


def serve_engine(settings: Settings) -> None:
    """Serves one base until SIGTERM or SIGINT; logs `engine.ready` once it accepts requests.

    Raises CatalogueError, StorageUnusable, ValueError or OSError for settings that cannot work.
    """
    base = read_catalogue(settings.catalogue).of_engine(settings.engine_base)
    storage = open_storage(settings)
    asyncio.run(storage.check())
    torch.set_num_threads(settings.engine_threads)
    loaded = load_or_explain(base, choose_device(settings.device))
    limits = EngineLimits(
        batch_rows=settings.engine_batch_rows,
        resident_adapters=settings.engine_resident_adapters,
        adapter_bytes=settings.engine_adapter_bytes,
        cache_bytes=settings.engine_cache_bytes,
    )
    cache = settings.scratch_dir / f"engine-{settings.engine_port}"  # two on one machine have different ports
    engine = Engine(base, loaded, storage, cache, limits)
    connections = ConnectionLimits(write_seconds=settings.write_seconds)
    config = serving(
        create_engine_app(engine, engine_key(settings)),
        settings.engine_host,
        settings.engine_port,
        connections,
        shutdown_seconds=SHUTDOWN_SECONDS,
    )
    _Server(config, base.id).run()


def create_engine_app(engine: Engine, key: str = "") -> ASGIApp:
    """The ASGI application; its lifespan runs the engine. `/v1/` is for those who have the key, unless it is empty."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.running():
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None, max_body_size=BODY_LIMIT_BYTES)
    endpoints = _Endpoints(engine)
    app.add_api_route("/v1/completions", endpoints.complete, methods=["POST"], response_model=None)
    app.add_api_route("/v1/chat/completions", endpoints.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/classifications", endpoints.classify, methods=["POST"], response_model=None)
    app.add_api_route("/v1/embeddings", endpoints.embed, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", endpoints.models, response_model=None)
    app.add_api_route("/health", endpoints.health, response_model=None)
    app.add_api_route("/metrics", endpoints.metrics, response_model=None)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return KeyRequired(app, key) if key else app


class KeyRequired:
    """Middleware: refuses a request below `/v1/` that does not have the key, as vLLM's `--api-key` does."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not secrets.compare_digest(given, self._expected):
                error = LuthierError("This engine is for the processes that have LUTHIER_ENGINE_API_KEY.")
                await _json(error_body(error), 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Endpoints:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._started = int(time.time())

    async def complete(self, body: CompletionRequest, request: Request) -> Response:
        async with AsyncExitStack() as stack:
            name, adapter = await stack.enter_async_context(self._engine.model(body.model))
            self._engine.check_generates(body.model, adapter)
            order = await self._engine.parser.completion(body, adapter)
            reply = CompletionReply(name, scored=body.logprobs is not None)
            return await self._respond(body, request, order, reply, stack)

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        async with AsyncExitStack() as stack:
            name, adapter = await stack.enter_async_context(self._engine.model(body.model))
            self._engine.check_generates(body.model, adapter)
            order = await self._engine.parser.chat(body, adapter)
            return await self._respond(body, request, order, ChatReply(name, scored=body.logprobs), stack)

    async def classify(self, body: ClassificationRequest, request: Request) -> Response:
        async with self._engine.model(body.model) as (name, found):
            adapter, head = self._engine.check_classifies(body.model, found)
            rows = await self._engine.parser.texts(body, adapter)
            values = await unless_gone(request, self._engine.reader.values(rows, adapter, head))
            return _json(classification(name, head.config, values, sum(map(len, rows))))

    async def embed(self, body: EmbeddingRequest, request: Request) -> Response:
        async with self._engine.model(body.model) as (name, adapter):
            head = self._engine.check_embeds(body.model, adapter)
            rows = await self._engine.parser.embedded_texts(body, adapter)
            vectors = await unless_gone(request, self._engine.reader.values(rows, adapter, head))
            return _json(embeddings(name, vectors, body.encoding_format, sum(map(len, rows))))

    async def _respond(
        self,
        body: CompletionRequest | ChatRequest,
        request: Request,
        order: Order,
        reply: Reply,
        held: AsyncExitStack,
    ) -> Response:
        """Submits the prompts. A stream takes over `held`, because it lasts longer than this call."""
        generation = held.enter_context(closing(self._engine.batcher.submit(order.prompts)))
        if body.stream:
            stream = events(generation, reply, order.prompt_tokens, include_usage=body.include_usage)
            return ReplyStream(stream, generation.generated, held.pop_all())
        return _json(await unless_gone(request, whole(generation, reply, order.prompt_tokens)))

    async def models(self) -> Response:
        """The base under all its names, and the adapters in memory. Other adapters in storage can be called as well."""
        base = self._engine.base
        names = [base.id, *base.aliases]
        models = [self._model(name, None) for name in names]
        models += [self._model(name, base.id) for name in self._engine.residents.names]
        return _json({"object": "list", "data": models})

    async def health(self) -> Response:
        return Response(status_code=200 if self._engine.alive else 503)

    async def metrics(self) -> Response:
        return Response(render_metrics(self._engine), media_type=CONTENT_TYPE)

    def _model(self, name: str, parent: str | None) -> Json:
        context = self._engine.base.context_tokens
        head = {"id": name, "object": "model", "created": self._started, "owned_by": "luthier"}
        return head | {"root": self._engine.base.id, "parent": parent, "max_model_len": context}


def _json(body: Json, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LuthierError)
    return _json(error_body(error), error.status)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_error(request, explain(error))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail} ({request.method} {request.url.path})"
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return _json({"error": body}, error.status_code)


async def _on_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED)


async def _on_crash(request: Request, error: Exception) -> Response:
    return await _on_error(request, LuthierError("The engine had an error while processing your request."))


_HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    LuthierError: _on_error,
    RequestValidationError: _on_invalid,
    HTTPException: _on_http,
    ClientGone: _on_gone,
    Exception: _on_crash,
}


class _Server(HttpServer):
    """Logs the address that it listens at: the port 0 means any free one."""

    def __init__(self, config: uvicorn.Config, base_id: str) -> None:
        super().__init__(config)
        self._base_id = base_id

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        log.info("engine.ready", base=self._base_id, host=host, port=port)
