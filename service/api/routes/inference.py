"""POST /v1/completions, /v1/chat/completions, /v1/classifications, /v1/embeddings: checks a request, resolves its
model, relays the response.

Uses what the client sent and whether it is still connected. The gateway chooses the engine and reads its response. When
a client disconnects, the work on its request ends at once. `responses` uses the same way, and translates on both sides.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api.schemas.errors import ErrorEnvelope
from service.api.schemas.inference import (
    ChatCompletion,
    Classification,
    Completion,
    CreateChatCompletionRequest,
    CreateClassificationRequest,
    CreateCompletionRequest,
    CreateEmbeddingRequest,
    EmbeddingList,
    EngineBody,
)
from service.api.web.auth import GenerationRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.errors import envelope
from service.api.web.traffic import Traffic
from service.domain.errors import LuthierError
from service.domain.json import JsonObject
from service.gateway.fields import Endpoint, engine_fields
from service.gateway.forward import EngineRequest, EngineResponse, RequestCost, log_usage
from service.gateway.limits import estimated_tokens
from service.gateway.prompt_length import check_length, sequences
from service.installation.context import Context
from service.operations import models
from service.operations.keys import Caller

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is nginx's

T = TypeVar("T")


Events = Callable[[EngineResponse], AsyncGenerator[bytes]]
Body = Callable[[EngineResponse], Awaitable[bytes]]


class Respond(Protocol):
    """Responds with what an engine makes of a request; `as_events` and `as_body` write it, else it passes unchanged."""

    async def __call__(
        self, endpoint: Endpoint, body: EngineBody, as_events: Events = ..., as_body: Body = ...
    ) -> Response: ...


async def _respond_to(request: Request, ctx: ContextDep, caller: CallerDep) -> Respond:
    return respond_to(request, ctx, caller)


def respond_to(request: Request, ctx: Context, caller: Caller) -> Respond:
    """How to respond to this caller. From here on, every response has the key's remaining limits in its headers."""
    request.state.standing = partial(ctx.limits.standing, caller.key_id)
    return partial(_respond, request, ctx, caller)


RespondDep = Annotated[Respond, Depends(_respond_to)]


def _responses(model: type[Completion] | type[ChatCompletion], chunk: str) -> dict[int | str, JsonObject]:
    """An operation's successful response for the OpenAPI document: whole, or as a stream of `chunk` objects."""
    description = f"Events `data: <{chunk}>`, then `data: [DONE]`; or, if it broke, `data: {{error: ...}}` and an end."
    stream = {"schema": {"type": "string", "description": description}}
    return {200: {"model": model, "content": {"text/event-stream": stream}}}


router = APIRouter(
    route_class=GenerationRoute, responses={429: {"model": ErrorEnvelope, "description": "Too many requests"}}
)


@router.post(
    "/completions",
    operation_id="createCompletion",
    tags=["Completions"],
    responses=_responses(Completion, "text_completion"),
)
async def create_completion(body: CreateCompletionRequest, respond: RespondDep) -> Response:
    """Continue one or several texts."""
    return await respond("completions", body)


@router.post(
    "/chat/completions",
    operation_id="createChatCompletion",
    tags=["Chat"],
    responses=_responses(ChatCompletion, "chat.completion.chunk"),
)
async def create_chat_completion(body: CreateChatCompletionRequest, respond: RespondDep) -> Response:
    """Generate the next message of a conversation."""
    return await respond("chat/completions", body)


@router.post(
    "/classifications",
    operation_id="createClassification",
    tags=["Classifications"],
    responses={200: {"model": Classification}},
)
async def create_classification(body: CreateClassificationRequest, respond: RespondDep) -> Response:
    """Classify or score one or several texts, with a model that was trained for it."""
    return await respond("classifications", body)


@router.post(
    "/embeddings",
    operation_id="createEmbedding",
    tags=["Embeddings"],
    responses={200: {"model": EmbeddingList}},
)
async def create_embedding(body: CreateEmbeddingRequest, respond: RespondDep) -> Response:
    """The vector of one or several texts, by a model that was trained for it or an encoder."""
    return await respond("embeddings", body)


async def _respond(
    client: Request,
    ctx: Context,
    caller: Caller,
    endpoint: Endpoint,
    body: EngineBody,
    as_events: Events = EngineResponse.events,
    as_body: Body = EngineResponse.body,
) -> Response:
    request = await _prepared(ctx, caller, endpoint, body)
    await ctx.limits.admit(request, caller.organization)
    opening = _opened(ctx, request, partial(_account, ctx, client.app.state.traffic))
    if request.streams:
        return RelayedEvents(await _while_connected(client.receive, opening), as_events)
    return Response(await _while_connected(client.receive, _whole(opening, as_body)), media_type="application/json")


async def _opened(ctx: Context, request: EngineRequest, account: Callable[[RequestCost], None]) -> EngineResponse:
    """The engine's response, once it was the project's turn; its places are free when it is closed."""
    release = await ctx.places.take(request)

    def done(cost: RequestCost) -> None:
        release()
        account(cost)

    try:
        return await ctx.gateway.open(request, done)
    except BaseException:
        release()
        raise


def _account(ctx: Context, traffic: Traffic, usage: RequestCost) -> None:
    """Reports the cost of a request to the log, to the metrics, and to the limits of its key."""
    log_usage(usage)
    traffic.used(usage)
    ctx.limits.settle(usage)


async def _prepared(ctx: Context, caller: Caller, endpoint: Endpoint, body: EngineBody) -> EngineRequest:
    """The request for an engine. Raises ModelNotFound, then InvalidRequest for what engines or the model cannot do."""
    model = await models.resolve_for_inference(ctx, caller, body.model, body.end_user)
    models.check_endpoint(body.model, model, endpoint)
    fields = body.model_dump(exclude={"model"}, exclude_unset=True, exclude_none=True)
    base = ctx.catalogue.find(model.base_id)
    assert base is not None, "the model was resolved to it"
    check_length(fields, base.context_tokens)
    return EngineRequest(
        endpoint,
        caller.project_id,
        model.base_id,
        model.name_for_engine,
        engine_fields(endpoint, fields, model.serving),
        key_id=caller.key_id,
        reserved_tokens=estimated_tokens(fields),
        sequences=sequences(fields),
        alias=model.alias or "",
        role=model.role,
    )


async def _whole(opening: Coroutine[Any, Any, EngineResponse], as_body: Body) -> bytes:
    response = await opening
    try:
        return await as_body(response)
    finally:
        response.close()


async def _while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled if the client disconnects first. Raises ClientDisconnect then."""
    worker = asyncio.current_task()
    assert worker is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        worker.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone and not worker.uncancel():
            raise ClientDisconnect from None
        raise  # the server ends
    finally:
        watching.cancel()


class RelayedEvents(StreamingResponse):
    """An engine's events, each relayed as it arrives; the engine's connection closes as soon as the client's does.

    They are relayed by a task of their own: what wakes up the request's task passes every layer around it, each time.
    """

    def __init__(self, response: EngineResponse, as_events: Events) -> None:
        self._response = response
        self._events = as_events(response)
        super().__init__(self._events, media_type="text/event-stream", headers=STREAM_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientDisconnect):  # the status was sent
                await _while_connected(receive, asyncio.create_task(self.stream_response(send)))
        finally:
            await self._events.aclose()
            self._response.close()

    async def stream_response(self, send: Send) -> None:
        """Sends one message for all events that arrived together; if they break off, the reason in the envelope."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for ready in self._events:
                await send({"type": "http.response.body", "body": ready, "more_body": True})
        except LuthierError as error:
            reason = b"data: " + bytes(envelope(error).body) + b"\n\n"
            await send({"type": "http.response.body", "body": reason, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
