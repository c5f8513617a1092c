"""A response while it is made, as the bytes that a client of /v1/responses receives, streamed or whole.

What an engine says (`chat`) becomes output items, and each step an event of the stream. A whole chat completion goes
the same way as chunks do, so that both give the same items. Text and reasoning end where something else begins; calls
stay open until the end, since engines may send fragments of several in turn. A stream that breaks ends in events that
say so.
"""

import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

import orjson
from pydantic import BaseModel

from service.api.responses.chat import (
    UNREADABLE,
    Call,
    ChatCompletion,
    Choice,
    Chunk,
    Logprob,
    Said,
    TokenUsage,
    chunks,
    completion,
)
from service.api.responses.places import Places
from service.api.schemas.response_objects import (
    IncompleteDetails,
    InputDetails,
    ItemStatus,
    OutputCall,
    OutputDetails,
    OutputItem,
    OutputLogprob,
    OutputMessage,
    OutputReasoning,
    OutputText,
    OutputTopLogprob,
    ReasoningText,
    ResponseError,
    ResponseObject,
    ResponseUsage,
)
from service.api.schemas.responses import CreateResponseRequest, FunctionTool
from service.domain import ids
from service.domain.errors import InvalidRequest, LuthierError, RateLimited, Unavailable
from service.domain.json import JsonObject

COMPLETE = ("stop", "tool_calls", "function_call")
INCOMPLETE: dict[str, Literal["max_output_tokens", "content_filter"]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}

Event = JsonObject


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


def _shown(tool: FunctionTool) -> JsonObject:
    """A tool as OpenAI repeats it."""
    given = tool.model_dump(exclude_none=True)
    return {"parameters": None, "strict": None} | given


def whole(response: ResponseObject, body: bytes) -> bytes:
    """The response to a request that is not streamed. Raises Unavailable for a body that cannot be read."""
    return orjson.dumps(_written(response, completion(body)).model_dump())


def _written(response: ResponseObject, made: ChatCompletion) -> ResponseObject:
    """The response with a whole chat completion in it. Raises Unavailable."""
    [only] = made.choices
    choice = Choice(delta=only.message, finish_reason=only.finish_reason, logprobs=only.logprobs)
    writer = _ResponseWriter(response)
    for _ in writer.add(Chunk(choices=[choice], usage=made.usage)):
        pass
    for _ in writer.end():
        pass
    return writer.response


async def streamed(response: ResponseObject, places: Places, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The events of a response, as the engine's arrive."""
    writer = _ResponseWriter(response)
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


def _encoded(events: Iterable[Event]) -> bytes:
    """Events of one moment, as one piece."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (str(event["type"]).encode(), orjson.dumps(event)) for event in events)


@dataclass
class _Writing:
    """Text or reasoning that is being said: its place in the output, and its pieces so far."""

    item: OutputMessage | OutputReasoning
    index: int
    pieces: list[str] = field(default_factory=list)
    logprobs: list[OutputLogprob] = field(default_factory=list)

    @property
    def kind(self) -> Literal["output_text", "reasoning_text"]:
        return "output_text" if isinstance(self.item, OutputMessage) else "reasoning_text"

    @property
    def place(self) -> JsonObject:
        return {"item_id": self.item.id, "output_index": self.index, "content_index": 0}


@dataclass
class _Calling:
    """A call whose arguments are being written."""

    item: OutputCall
    index: int
    pieces: list[str] = field(default_factory=list)

    @property
    def place(self) -> JsonObject:
        return {"item_id": self.item.id, "output_index": self.index}


class _ResponseWriter:
    """Of one response; `response` is how far it has come. Call `begin`, `add` for all that is said, then an end."""

    def __init__(self, response: ResponseObject) -> None:
        self.response = response
        self._sequence = 0
        self._items: list[OutputItem] = []
        self._writing: _Writing | None = None
        self._calls: dict[int, _Calling] = {}
        self._finish_reason: str | None = None

    def begin(self) -> Iterator[Event]:
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)

    def add(self, chunk: Chunk) -> Iterator[Event]:
        """What a chunk adds. Raises Unavailable for a fragment of a call that has no name."""
        if chunk.usage is not None:
            self.response.usage = _usage(chunk.usage)
        for choice in chunk.choices:
            yield from self._say(choice.delta, _logprobs(choice))
            self._finish_reason = choice.finish_reason or self._finish_reason

    def end(self) -> Iterator[Event]:
        """The last events. Raises Unavailable where the engine has not said why it ended, or says no good reason."""
        reason = self._finish_reason
        if reason not in COMPLETE and reason not in INCOMPLETE:
            raise Unavailable("The engine ended its response without a result. Please try again.")
        if not self._items:
            yield from self._begin(OutputMessage(id=ids.message_id()))
        status: ItemStatus = "completed" if reason in COMPLETE else "incomplete"
        yield from self._finish_writing(status)
        for call in self._calls.values():
            yield from self._finish_call(call, status)
        self.response.output = self._items
        self.response.status = status
        if reason in INCOMPLETE:
            self.response.incomplete_details = IncompleteDetails(reason=INCOMPLETE[reason])
        else:
            self.response.completed_at = int(time.time())
        yield self._event(f"response.{status}", response=self.response)

    def fail(self, error: LuthierError) -> Iterator[Event]:
        """The last events of a response that broke: what was said stays, marked as incomplete."""
        self._cut_items()
        self.response.output = self._items
        self.response.status = "failed"
        self.response.error = ResponseError(code=_error_code(error), message=error.message)
        yield self._event(
            "error", code=error.code or self.response.error.code, message=error.message, param=error.param
        )
        yield self._event("response.failed", response=self.response)

    def _say(self, said: Said, logprobs: list[OutputLogprob]) -> Iterator[Event]:
        if reasoning := said.reasoning or said.reasoning_content:
            if not (self._writing and isinstance(self._writing.item, OutputReasoning)):
                yield from self._begin(OutputReasoning(id=ids.reasoning_id()))
            yield from self._write(reasoning, [])
        if said.content or logprobs:
            if not (self._writing and isinstance(self._writing.item, OutputMessage)):
                yield from self._begin(OutputMessage(id=ids.message_id()))
            yield from self._write(said.content or "", logprobs)
        for position, fragment in enumerate(said.tool_calls or ()):
            yield from self._call(position if fragment.index is None else fragment.index, fragment)

    def _begin(self, item: OutputMessage | OutputReasoning) -> Iterator[Event]:
        """Opens a message or reasoning, after whatever is being written."""
        yield from self._finish_writing("completed")
        self._writing = _Writing(item, len(self._items))
        self._items.append(item)
        yield self._event("response.output_item.added", output_index=self._writing.index, item=item)
        part = OutputText() if isinstance(item, OutputMessage) else ReasoningText()
        yield self._event("response.content_part.added", **self._writing.place, part=part)

    def _write(self, delta: str, logprobs: list[OutputLogprob]) -> Iterator[Event]:
        assert self._writing is not None
        self._writing.pieces.append(delta)
        self._writing.logprobs += logprobs
        more = {"logprobs": logprobs} if self._writing.kind == "output_text" else {}
        yield self._event(f"response.{self._writing.kind}.delta", **self._writing.place, delta=delta, **more)

    def _finish_writing(self, status: ItemStatus) -> Iterator[Event]:
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        part = _fill(writing, status)
        more = {"logprobs": writing.logprobs} if writing.kind == "output_text" else {}
        yield self._event(f"response.{writing.kind}.done", **writing.place, text=part.text, **more)
        yield self._event("response.content_part.done", **writing.place, part=part)
        yield self._event("response.output_item.done", output_index=writing.index, item=writing.item)

    def _call(self, index: int, fragment: Call) -> Iterator[Event]:
        call = self._calls.get(index)
        if call is None:
            if not fragment.function.name:
                raise Unavailable(UNREADABLE)
            yield from self._finish_writing("completed")
            call_id = fragment.id or ids.call_id()
            item = OutputCall(id=ids.function_call_id(), call_id=call_id, name=fragment.function.name)
            call = self._calls[index] = _Calling(item, len(self._items))
            self._items.append(item)
            yield self._event("response.output_item.added", output_index=call.index, item=item)
        if arguments := fragment.function.arguments:
            call.pieces.append(arguments)
            yield self._event("response.function_call_arguments.delta", **call.place, delta=arguments)

    def _finish_call(self, call: _Calling, status: ItemStatus) -> Iterator[Event]:
        call.item.arguments = "".join(call.pieces)
        call.item.status = status
        done = {"name": call.item.name, "arguments": call.item.arguments}
        yield self._event("response.function_call_arguments.done", **call.place, **done)
        yield self._event("response.output_item.done", output_index=call.index, item=call.item)

    def _cut_items(self) -> None:
        """Fills what is still being said, which has not ended."""
        if self._writing is not None:
            _fill(self._writing, "incomplete")
        for call in self._calls.values():
            call.item.arguments = "".join(call.pieces)
            call.item.status = "incomplete"

    def _event(self, kind: str, **fields: object) -> Event:
        event = {"type": kind, "sequence_number": self._sequence}
        self._sequence += 1
        return event | {name: _plain(value) for name, value in fields.items()}


def _plain(value: object) -> object:
    """A copy as JSON: an event says how far its item had come."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _fill(writing: _Writing, status: ItemStatus) -> OutputText | ReasoningText:
    """Puts into the item what was said so far."""
    text = "".join(writing.pieces)
    writing.item.status = status
    if isinstance(writing.item, OutputMessage):
        writing.item.content = [OutputText(text=text, logprobs=writing.logprobs)]
    else:
        writing.item.content = [ReasoningText(text=text)]
    return writing.item.content[0]


def _logprobs(choice: Choice) -> list[OutputLogprob]:
    found = choice.logprobs.content if choice.logprobs else None
    return [
        OutputLogprob(**_spelled(token), top_logprobs=[OutputTopLogprob(**_spelled(top)) for top in token.top_logprobs])
        for token in found or ()
    ]


def _spelled(token: Logprob) -> JsonObject:
    return {"token": token.token, "bytes": token.bytes or [], "logprob": token.logprob}


def _usage(usage: TokenUsage) -> ResponseUsage:
    read, made = usage.prompt_tokens_details, usage.completion_tokens_details
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=(read.cached_tokens if read else None) or 0),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens=(made.reasoning_tokens if made else None) or 0),
        total_tokens=usage.total_tokens,
    )


def _error_code(error: LuthierError) -> Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]:
    """OpenAI's codes of a failed response."""
    if isinstance(error, RateLimited):
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
