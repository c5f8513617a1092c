"""/v1/fine_tuning/jobs: from the wire to `operations.jobs` and back; a job's events also as server-sent events.

A stream of events follows the sequence number, so that no event is missed or sent twice. All streams of a job share one
poller (`web.job_feeds`). A stream holds one batch at a time and ends when the client hangs up or its key is revoked.
"""

import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import StreamingResponse

from service.api.schemas.errors import QUOTA
from service.api.schemas.fields import Text
from service.api.schemas.job_objects import CheckpointObject, EventObject, JobObject
from service.api.schemas.jobs import SEED_MAXIMUM, CreateCheck, CreateJob
from service.api.web.auth import ApiRoute
from service.api.web.deps import CallerDep, ContextDep
from service.api.web.errors import envelope
from service.api.web.job_feeds import JobFeeds
from service.api.web.pagination import After, CursorList, Limit, ListObject, as_cursor_list, as_list
from service.domain.errors import LuthierError
from service.domain.event import Event
from service.domain.json import JsonObject
from service.installation.context import Context
from service.operations import jobs
from service.operations.jobs import NewJob
from service.operations.keys import Caller
from service.recipes.objective import OBJECTIVES, Hyperparameters, find_objective, hyperparameters_type
from service.recipes.safeguards import Safeguards

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Fine-tuning"], route_class=ApiRoute)

JobId = Annotated[Text, Path(description="The id of the fine-tuning job.")]
METADATA_PARAMETER: JsonObject = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "style": "deepObject",
            "explode": True,
            "description": "Only jobs with this metadata: `metadata[key]=value`, or `metadata=null` for none.",
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}

POLL_SECONDS = 0.3
HEARTBEAT_SECONDS = 15.0
LOOK_SECONDS = 1.0  # how often a stream looks whether its key still works, and whether a heartbeat is due
BATCH_EVENTS = 100
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # the second is nginx's

# No blank line behind it: the SDKs would take comment and blank line for an event without data, and fail to parse it.
HEARTBEAT = b": the job continues\n"
DONE = b"data: [DONE]\n\n"

Stream = Annotated[
    bool,
    Query(description="Follow the job: server-sent events, oldest first, until it ends. `limit` has no effect."),
]
LastEventId = Annotated[
    Text | None,
    Header(description="With `stream`: the last event seen, as browsers send it; takes precedence over `after`."),
]
EVENT_STREAM: dict[int | str, JsonObject] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "string",
                    "description": "Events with `id`, `event: fine_tuning.job.event` and `data: <EventObject>`, then "
                    "`data: [DONE]`; or, if the stream breaks off, `data: {error: ...}` and its end.",
                }
            }
        }
    }
}


def _metadata(request: Request) -> Mapping[str, str] | None:
    """The filter of a list: None for no filter, {} for jobs without metadata."""
    if request.query_params.get("metadata") == "null":
        return {}
    items = request.query_params.items()
    pairs = {
        key[len("metadata[") : -1]: value for key, value in items if key.startswith("metadata[") and key[-1] == "]"
    }
    return pairs or None


@router.post("", operation_id="createFineTuningJob", responses=QUOTA)
async def create(ctx: ContextDep, caller: CallerDep, body: CreateJob) -> JobObject:
    """Create a fine-tuning job and put it into the queue."""
    new = replace(new_job(body), check=body.check)
    return JobObject.of(await jobs.create(ctx, caller, new), caller.organization_id)


@router.get("", operation_id="listPaginatedFineTuningJobs", openapi_extra=METADATA_PARAMETER)
async def page(
    ctx: ContextDep,
    caller: CallerDep,
    metadata: Annotated[Mapping[str, str] | None, Depends(_metadata)],
    after: After = None,
    limit: Limit = 20,
) -> ListObject[JobObject]:
    """List the project's fine-tuning jobs, newest first."""
    found = await jobs.page(ctx, caller, after=after, limit=limit, metadata=metadata)
    return as_list(found, lambda view: JobObject.of(view, caller.organization_id))


@router.get("/{fine_tuning_job_id}", operation_id="retrieveFineTuningJob")
async def retrieve(ctx: ContextDep, caller: CallerDep, fine_tuning_job_id: JobId) -> JobObject:
    """Get a fine-tuning job."""
    return JobObject.of(await jobs.retrieve(ctx, caller, fine_tuning_job_id), caller.organization_id)


@router.post("/{fine_tuning_job_id}/cancel", operation_id="cancelFineTuningJob")
async def cancel(ctx: ContextDep, caller: CallerDep, fine_tuning_job_id: JobId) -> JobObject:
    """Cancel a fine-tuning job at once."""
    return JobObject.of(await jobs.cancel(ctx, caller, fine_tuning_job_id), caller.organization_id)


@router.post("/{fine_tuning_job_id}/pause", operation_id="pauseFineTuningJob")
async def pause(ctx: ContextDep, caller: CallerDep, fine_tuning_job_id: JobId) -> JobObject:
    """Ask a running job to pause: it stays `running`, and is `paused` once its checkpoint is published."""
    return JobObject.of(await jobs.pause(ctx, caller, fine_tuning_job_id), caller.organization_id)


@router.post("/{fine_tuning_job_id}/resume", operation_id="resumeFineTuningJob")
async def resume(ctx: ContextDep, caller: CallerDep, fine_tuning_job_id: JobId) -> JobObject:
    """Let a paused job continue exactly where it stopped; or cancel a pause before it takes effect."""
    return JobObject.of(await jobs.resume(ctx, caller, fine_tuning_job_id), caller.organization_id)


@router.get(
    "/{fine_tuning_job_id}/events",
    operation_id="listFineTuningEvents",
    response_model=ListObject[EventObject],
    responses=EVENT_STREAM,
)
async def events(
    request: Request,
    ctx: ContextDep,
    caller: CallerDep,
    fine_tuning_job_id: JobId,
    after: After = None,
    limit: Limit = 20,
    stream: Stream = False,
    last_event_id: LastEventId = None,
) -> ListObject[EventObject] | StreamingResponse:
    """List the events of a fine-tuning job, newest first; or follow them, oldest first, until the job has ended."""
    if stream:
        return await _follow(request, ctx, caller, fine_tuning_job_id, after=last_event_id or after)
    return as_list(await jobs.event_page(ctx, caller, fine_tuning_job_id, after=after, limit=limit), EventObject.of)


@router.get("/{fine_tuning_job_id}/checkpoints", operation_id="listFineTuningJobCheckpoints")
async def checkpoints(
    ctx: ContextDep, caller: CallerDep, fine_tuning_job_id: JobId, after: After = None, limit: Limit = 10
) -> CursorList[CheckpointObject]:
    """List the models that a fine-tuning job has published during training, newest first."""
    found = await jobs.checkpoint_page(ctx, caller, fine_tuning_job_id, after=after, limit=limit)
    return as_cursor_list(found, CheckpointObject.of, lambda checkpoint: checkpoint.id)


def new_job(body: CreateCheck) -> NewJob:
    """What the body asks for."""
    return NewJob(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        seed=secrets.randbelow(SEED_MAXIMUM + 1) if body.seed is None else body.seed,
        suffix=body.suffix,
        objective=_objective(body),
        hyperparameters=_hyperparameters(body),
        tuning=None if body.tuning is None else body.tuning.chosen(),
        served_form=None if body.tuning is None else body.tuning.form,
        metadata=body.metadata,
        integrations=[integration.model_dump(exclude_unset=True) for integration in body.integrations or []],
        idle_methods=() if body.method is None else tuple(body.method.idle),
        safeguards=Safeguards(
            early_stopping=body.early_stopping,
            checkpoint_selection=body.checkpoint_selection,
            forgetting_report=bool(body.forgetting_report),
        ),
    )


def _objective(body: CreateCheck) -> str:
    return OBJECTIVES.default.name if body.method is None else body.method.type


def _hyperparameters(body: CreateCheck) -> Hyperparameters:
    """Those of the method take precedence, field by field, over the deprecated ones beside `method`."""
    given = [body.__dict__["hyperparameters"], None if body.method is None else body.method.hyperparameters]
    merged: JsonObject = {}
    for part in given:
        merged |= part.model_dump(exclude_unset=True) if part is not None else {}
    return hyperparameters_type(find_objective(_objective(body)))(**merged)


async def _follow(
    request: Request, ctx: Context, caller: Caller, job_id: str, *, after: str | None
) -> StreamingResponse:
    """The stream behind the event `after`. Raises NotFound or InvalidRequest before it begins."""
    sequence = await jobs.event_position(ctx, caller, job_id, after)
    return StreamingResponse(
        _events(request, ctx, caller, job_id, sequence), media_type="text/event-stream", headers=STREAM_HEADERS
    )


async def _events(request: Request, ctx: Context, caller: Caller, job_id: str, sequence: int) -> AsyncGenerator[bytes]:
    """Whole batches as they come; if the stream breaks off, the reason in the error envelope."""
    feeds: JobFeeds = request.app.state.job_feeds
    sent_at = time.monotonic()
    try:
        with feeds.following(ctx, caller, job_id, sequence, POLL_SECONDS) as feed:
            while True:
                found = await feed.next(sequence, BATCH_EVENTS, min(LOOK_SECONDS, max(HEARTBEAT_SECONDS, POLL_SECONDS)))
                await request.app.state.known_keys.caller(request)  # a revoked key's streams end with it
                if found.events:
                    yield b"".join(_rendered(event) for event in found.events)
                    sequence, sent_at = found.events[-1].sequence, time.monotonic()
                if found.ended:
                    yield DONE
                    return
                if time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
                    yield HEARTBEAT
                    sent_at = time.monotonic()
    except LuthierError as error:
        yield b"data: " + bytes(envelope(error).body) + b"\n\n"


def _rendered(event: Event) -> bytes:
    wire = EventObject.of(event)
    return f"id: {wire.id}\nevent: {wire.object}\ndata: {wire.model_dump_json()}\n\n".encode()
