"""A job's events as server-sent events: from the first, or behind the one that a client saw last, until the job ends.

Follows by sequence number, so that no event is missed or told twice. Polls the database: events are written by workers
in other processes, a batch per heartbeat. Holds one batch at a time; ends when the client hangs up.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Header, Query
from fastapi.responses import StreamingResponse

from service.api.schemas.fields import Text
from service.api.schemas.job_objects import EventObject
from service.api.web.errors import envelope
from service.domain.errors import LuthierError
from service.domain.event import Event
from service.domain.json import JsonObject
from service.installation.context import Context
from service.operations import jobs
from service.operations.keys import Caller

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 15.0
BATCH_EVENTS = 100
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is nginx's

# No blank line behind it: the SDKs would take comment and blank line for an event without data, and fail to parse it.
HEARTBEAT = b": the job goes on\n"
DONE = b"data: [DONE]\n\n"

Stream = Annotated[
    bool,
    Query(description="Follow the job: server-sent events, oldest first, until it has ended. `limit` has no part."),
]
LastEventId = Annotated[
    Text | None, Header(description="With `stream`: the last event seen, as browsers send it; wins over `after`.")
]
DESCRIBED: dict[int | str, JsonObject] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "string",
                    "description": "Events with `id`, `event: fine_tuning.job.event` and `data: <EventObject>`, then "
                    "`data: [DONE]`; or, if it broke, `data: {error: ...}` and an end.",
                }
            }
        }
    }
}


async def follow(ctx: Context, caller: Caller, job_id: str, *, after: str | None) -> StreamingResponse:
    """The stream behind the event `after`. Raises NotFound or InvalidRequest before it begins."""
    sequence = await jobs.event_position(ctx, caller, job_id, after)
    return StreamingResponse(_events(ctx, caller, job_id, sequence), media_type="text/event-stream", headers=HEADERS)


async def _events(ctx: Context, caller: Caller, job_id: str, sequence: int) -> AsyncGenerator[bytes]:
    """Whole batches as they come; the reason, in the error envelope, where the stream breaks off."""
    spoke = time.monotonic()
    try:
        while True:
            found = await jobs.next_events(ctx, caller, job_id, sequence, BATCH_EVENTS)
            if found.events:
                yield b"".join(_rendered(event) for event in found.events)
                sequence, spoke = found.events[-1].sequence, time.monotonic()
            if found.ended:
                yield DONE
                return
            if len(found.events) < BATCH_EVENTS:
                await asyncio.sleep(POLL_SECONDS)
            if time.monotonic() - spoke >= HEARTBEAT_SECONDS:
                yield HEARTBEAT
                spoke = time.monotonic()
    except LuthierError as error:
        yield b"data: " + bytes(envelope(error).body) + b"\n\n"


def _rendered(event: Event) -> bytes:
    wire = EventObject.of(event)
    return f"id: {wire.id}\nevent: {wire.object}\ndata: {wire.model_dump_json()}\n\n".encode()
