"""Sending a response: server-sent events, whole bodies, and detecting that the client has disconnected.

Knows HTTP and replies; independent of models and tokens.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from typing import TypeVar

import orjson
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.domain.errors import LuthierError
from workers.engines.embedded.replies import Json, Reply, WholeChoice, usage
from workers.engines.embedded.request import GenerationRequest

DONE = b"data: [DONE]\n\n"

T = TypeVar("T")


class ClientGone(Exception):
    """The client disconnected before the response began."""


class ReplyStream(StreamingResponse):
    """Server-sent events; `held` is released when all tokens are made or the response has ended, in whatever way.

    A client that does not read its response does not keep the adapter in memory.
    """

    def __init__(self, events: AsyncIterator[bytes], generated: asyncio.Event, held: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream; charset=utf-8", headers={"cache-control": "no-cache"})
        self._generated = generated
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        releasing = asyncio.create_task(self._release())
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._generated.set()
            await releasing

    async def _release(self) -> None:
        await self._generated.wait()
        await self._held.aclose()


def error_body(error: LuthierError) -> Json:
    """OpenAI's envelope."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


async def whole(generation: GenerationRequest, reply: Reply, prompt_tokens: int) -> Json:
    """The body of a response that is not streamed."""
    choices = [WholeChoice(index) for index in range(generation.num_choices)]
    async for piece in generation.pieces():
        choices[piece.index].add(piece)
    return reply.whole(choices, usage(prompt_tokens, generation.generated_tokens))


async def events(
    generation: GenerationRequest, reply: Reply, prompt_tokens: int, *, include_usage: bool
) -> AsyncIterator[bytes]:
    """The chunks of a streamed response. An error after it began is an event of its own."""
    extra = {"usage": None} if include_usage else {}
    try:
        for index in range(generation.num_choices):
            if opening := reply.opening(index):
                yield _event(opening | extra)
        async for piece in generation.pieces():
            for chunk in reply.chunks(piece):
                yield _event(chunk | extra)
        if include_usage:
            yield _event(reply.closing(usage(prompt_tokens, generation.generated_tokens)))
    except LuthierError as error:
        yield _event(error_body(error))
    yield DONE


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The work's result. Raises ClientGone, and cancels the work, when the client disconnects first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(chunk: Json) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
