"""POST /v1/responses: a chat completion in the words of OpenAI's newer API. Stateless: nothing is stored.

Translates request and response (`service.api.responses`); everything between them is the route of chat completions:
limits, the choice of an engine, usage, errors, disconnects.
"""

from collections.abc import AsyncGenerator

from fastapi import APIRouter, Response
from pydantic import ValidationError

from service.api.responses.request import chat_request
from service.api.responses.writer import begun, streamed, whole
from service.api.routes import inference
from service.api.routes.inference import RespondDep
from service.api.schemas.errors import ErrorEnvelope
from service.api.schemas.inference import CreateChatCompletionRequest
from service.api.schemas.response_objects import ResponseObject
from service.api.schemas.responses import CreateResponseRequest
from service.api.web.deps import CallerDep
from service.api.web.errors import finding
from service.domain.errors import InvalidRequest, NotFound
from service.domain.json import JsonObject
from service.gateway.forward import EngineResponse

NOTHING_STORED = {"luthier-stored": "false"}

_STREAM: JsonObject = {
    "schema": {
        "type": "string",
        "description": "Events `response.created` to `response.completed`, `.incomplete` or `.failed`.",
    }
}
router = APIRouter(route_class=inference.router.route_class, tags=["Responses"])  # within the same limits


@router.post(
    "/responses",
    operation_id="createResponse",
    responses={
        200: {"model": ResponseObject, "content": {"text/event-stream": _STREAM}},
        429: {"model": ErrorEnvelope, "description": "Too many requests"},
    },
)
async def create_response(body: CreateResponseRequest, respond: RespondDep) -> Response:
    """Generate the next output items of a conversation."""
    chat = chat_request(body)

    def events(engine: EngineResponse) -> AsyncGenerator[bytes]:
        return streamed(begun(body, engine.model), chat.places, engine.events())

    async def text(engine: EngineResponse) -> bytes:
        return whole(begun(body, engine.model), await engine.body())

    try:
        request = CreateChatCompletionRequest.model_validate(chat.fields)
        response = await respond("chat/completions", request, events, text)
    except ValidationError as error:  # of a field that both have, with other limits there
        raise chat.places.caller_error(finding(error.errors(), chat.fields)) from error
    except InvalidRequest as error:
        raise chat.places.caller_error(error) from error
    response.headers.update(NOTHING_STORED)
    return response


@router.get("/responses/{response_id}", operation_id="getResponse")
@router.delete("/responses/{response_id}", operation_id="deleteResponse")
async def not_stored(response_id: str, caller: CallerDep) -> Response:
    """Always a 404: responses are not stored."""
    raise _never_stored(response_id)


@router.get("/responses/{response_id}/input_items", operation_id="listInputItems")
async def no_input_items(response_id: str, caller: CallerDep) -> Response:
    """Always a 404: responses are not stored."""
    raise _never_stored(response_id)


@router.post("/responses/{response_id}/cancel", operation_id="cancelResponse")
async def nothing_to_cancel(response_id: str, caller: CallerDep) -> Response:
    """Always a 404: responses are not stored, and none is made in the background."""
    raise _never_stored(response_id)


def _never_stored(response_id: str) -> NotFound:
    return NotFound(
        f"Response with id '{response_id}' not found. Responses are not stored here: keep what you were sent.",
        param="response_id",
    )
