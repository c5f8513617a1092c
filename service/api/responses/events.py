"""A chat completion, streamed or whole, as the bytes that a client of /v1/responses receives.

Reads an engine's bytes (`chat`), lets `writer` make the response, and encodes. A stream that breaks ends in events
that say so.
"""

import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import orjson

from service.api.responses.chat import chunks, completion
from service.api.responses.places import Places
from service.api.responses.writer import Event, ResponseWriter, written
from service.api.schemas.response_objects import ResponseObject
from service.api.schemas.responses import CreateResponseRequest, FunctionTool
from service.domain import ids
from service.domain.errors import InvalidRequest, LuthierError, Unavailable
from service.domain.json import JsonObject


def begun(body: CreateResponseRequest, model: str) -> ResponseObject:
    """The response before the engine has said anything; `model` is what serves it."""
    reasoning = body.reasoning
    text = body.text.model_dump(exclude_none=True) if body.text else {}
    choice = body.tool_choice
    return ResponseObject(
        id=ids.response_id(),
        created_at=int(time.time()),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        max_tool_calls=body.max_tool_calls,
        model=model,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        prompt_cache_key=body.prompt_cache_key,
        prompt_cache_retention=body.prompt_cache_retention,
        reasoning={"effort": reasoning.effort if reasoning else None, "summary": None},
        safety_identifier=body.safety_identifier,
        temperature=body.temperature,
        text={"format": {"type": "text"}} | text,
        tool_choice="auto" if choice is None else choice if isinstance(choice, str) else choice.model_dump(),
        tools=[_shown(tool) for tool in body.tools or () if isinstance(tool, FunctionTool)],
        top_logprobs=body.top_logprobs or 0,
        top_p=body.top_p,
        user=body.user,
        metadata=body.metadata or {},
    )


def whole(response: ResponseObject, body: bytes) -> bytes:
    """The response to a request that is not streamed. Raises Unavailable for a body that cannot be read."""
    return orjson.dumps(written(response, completion(body)).model_dump())


async def streamed(response: ResponseObject, places: Places, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The events of a response, as the engine's arrive."""
    writer = ResponseWriter(response)
    yield _encoded(writer.begin())
    try:
        async with aclosing(events):
            async for ready in events:
                said: list[Event] = []
                unreadable: Unavailable | None = None
                try:
                    for chunk in chunks(ready):
                        said.extend(writer.add(chunk))
                except Unavailable as error:
                    unreadable = error
                if said:
                    yield _encoded(said)
                if unreadable is not None:
                    await events.athrow(unreadable)  # so that the engine counts as failed, not the client as gone
        yield _encoded(writer.end())
    except LuthierError as error:
        own = places.caller_error(error) if isinstance(error, InvalidRequest) else error
        yield _encoded(writer.fail(own))


def _shown(tool: FunctionTool) -> JsonObject:
    """A tool as OpenAI repeats it."""
    given = tool.model_dump(exclude_none=True)
    return {"parameters": None, "strict": None} | given


def _encoded(events: Iterable[Event]) -> bytes:
    """Events of one moment, as one piece."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), orjson.dumps(event)) for event in events)
