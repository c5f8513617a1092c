"""POST /v1/completions and /v1/chat/completions: checked, resolved, handed to the gateway, and its answer handed back.

Stands at both ends of a completion's journey. Knows what the client sent and whether the client is still there; which
engine answers, and how, is the gateway's affair. A client that hangs up ends the work on its request at once.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api.schemas.errors import ErrorEnvelope
from service.api.schemas.inference import (
    ChatCompletion,
    Completion,
    CreateChatCompletionRequest,
    CreateCompletionRequest,
    Generation,
)
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.errors import envelope
from service.api.web.traffic import Traffic
from service.domain.errors import LuthierError
from service.domain.json import JsonObject
from service.gateway.fields import Endpoint, engine_fields
from service.gateway.forward import Answer, EngineRequest, Usage, log_usage
from service.gateway.limits import estimated_tokens
from service.installation.context import Context
from service.operations import models
from service.operations.keys import Caller

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is nginx's

T = TypeVar("T")


Answering = Callable[[Endpoint, Generation], Awaitable[Response]]


async def _answering(request: Request, ctx: ContextDep, caller: CallerDep) -> Answering:
    """What answers this caller. From here on every answer says what the caller's key has left."""
    request.state.standing = partial(ctx.limits.standing, caller.key_id)
    return partial(_answered, request, ctx, caller)


AnsweringDep = Annotated[Answering, Depends(_answering)]


def _answer_of(model: type[Completion] | type[ChatCompletion], chunk: str) -> dict[int | str, JsonObject]:
    """An operation's good answer for the OpenAPI document: whole, or as a stream of `chunk` objects."""
    description = f"Events `data: <{chunk}>`, then `data: [DONE]`; or, if it broke, `data: {{error: ...}}` and an end."
    stream = {"schema": {"type": "string", "description": description}}
    return {200: {"model": model, "content": {"text/event-stream": stream}}}


router = APIRouter(route_class=ApiRoute, responses={429: {"model": ErrorEnvelope, "description": "Too many requests"}})


@router.post(
    "/completions",
    operation_id="createCompletion",
    tags=["Completions"],
    responses=_answer_of(Completion, "text_completion"),
)
async def create_completion(body: CreateCompletionRequest, answering: AnsweringDep) -> Response:
    """Continues one or several texts."""
    return await answering("completions", body)


@router.post(
    "/chat/completions",
    operation_id="createChatCompletion",
    tags=["Chat"],
    responses=_answer_of(ChatCompletion, "chat.completion.chunk"),
)
async def create_chat_completion(body: CreateChatCompletionRequest, answering: AnsweringDep) -> Response:
    """Answers a conversation."""
    return await answering("chat/completions", body)


async def _answered(client: Request, ctx: Context, caller: Caller, endpoint: Endpoint, body: Generation) -> Response:
    request = await _prepared(ctx, caller, endpoint, body)
    await ctx.limits.admit(request, caller.organization)
    opening = ctx.gateway.open(request, partial(_account, ctx, client.app.state.traffic))
    if request.streams:
        return EventStream(await _while_connected(client, opening))
    return Response(await _while_connected(client, _whole(opening)), media_type="application/json")


def _account(ctx: Context, traffic: Traffic, usage: Usage) -> None:
    """Who hears what an answer cost: the log, the metrics, and the limits of its key."""
    log_usage(usage)
    traffic.used(usage)
    ctx.limits.settle(usage)


async def _prepared(ctx: Context, caller: Caller, endpoint: Endpoint, body: Generation) -> EngineRequest:
    """What goes to an engine. Raises ModelNotFound, then InvalidRequest for what engines cannot do."""
    model = await models.resolve_for_inference(ctx, caller, body.model)
    fields = body.model_dump(exclude={"model"}, exclude_unset=True, exclude_none=True)
    return EngineRequest(
        endpoint,
        caller.project_id,
        model.base_id,
        model.name_for_engine,
        engine_fields(endpoint, fields, model.serving),
        key_id=caller.key_id,
        reserved_tokens=estimated_tokens(fields),
    )


async def _whole(opening: Coroutine[Any, Any, Answer]) -> bytes:
    answer = await opening
    try:
        return await answer.body()
    finally:
        answer.close()


async def _while_connected(client: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up first. Raises ClientDisconnect then."""
    task, watch = asyncio.create_task(work), asyncio.create_task(_hang_up(client))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _hang_up(client: Request) -> None:
    while (await client.receive())["type"] != "http.disconnect":
        pass


class EventStream(StreamingResponse):
    """An answer's events, each sent on as it comes; the engine's connection closes as soon as the client's does."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._events = _events(answer)
        super().__init__(self._events, media_type="text/event-stream", headers=STREAM_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            self._answer.close()


async def _events(answer: Answer) -> AsyncGenerator[bytes]:
    """The answer's events; the reason, in the error envelope, where they break off."""
    try:
        async with aclosing(answer.events()) as events:
            async for ready in events:
                yield ready
    except LuthierError as error:
        yield b"data: " + bytes(envelope(error).body) + b"\n\n"
