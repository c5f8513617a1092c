"""Requests for an engine, on the shortest way from the layers around the API to their operation: plain ASGI.

There are a thousand of them for each other request, and FastAPI needed about half of a request's time to find its
route, to solve its dependencies and to read its body. The routes are declared as all others (`routes.inference`,
`routes.responses`): the document, the names in metrics and what an operation does come from there; only the call is
made here. Key, limits of the body, validation and errors are those of `web.auth.GenerationRoute`. Any other request is
passed to FastAPI.
"""

import email.message
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.routes import inference, responses
from service.api.routes.inference import Respond
from service.api.schemas.inference import (
    CreateChatCompletionRequest,
    CreateClassificationRequest,
    CreateCompletionRequest,
    CreateEmbeddingRequest,
)
from service.api.schemas.responses import CreateResponseRequest
from service.api.web import errors
from service.api.web.auth import GenerationRoute, KnownKeys
from service.api.web.bodies import ReadRequest, read_within
from service.domain.errors import InvalidRequest, LuthierError
from service.installation.context import Context


@dataclass(frozen=True)
class Direct:
    """A route with one JSON body, and the function that FastAPI would call with it."""

    body: type[BaseModel]
    call: Callable[[Any, Respond], Awaitable[Response]]


DIRECT = {
    "/v1/completions": Direct(CreateCompletionRequest, inference.create_completion),
    "/v1/chat/completions": Direct(CreateChatCompletionRequest, inference.create_chat_completion),
    "/v1/classifications": Direct(CreateClassificationRequest, inference.create_classification),
    "/v1/embeddings": Direct(CreateEmbeddingRequest, inference.create_embedding),
    "/v1/responses": Direct(CreateResponseRequest, responses.create_response),
}


class DirectRoutes:
    """Middleware, the innermost: see the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = DIRECT.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["endpoint"] = route.call
        try:
            response = await _response(Request(scope, receive), route)
        except LuthierError as error:
            response = errors.refusal(error)
        await response(scope, receive, send)


async def _response(request: Request, route: Direct) -> Response:
    known_keys: KnownKeys = request.app.state.known_keys
    ctx: Context = request.app.state.context
    caller = request.state.caller = await known_keys.caller(request)
    sent = await read_within(request, GenerationRoute.body_limits)
    respond = inference.respond_to(request, ctx, caller)
    return await route.call(validated(route.body, await _value(sent)), respond)


def validated(model: type[BaseModel], value: object) -> BaseModel:
    """The body as its wire model. Raises InvalidRequest with the first finding."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise errors.finding(error.errors(include_url=False), value) from error


async def _value(request: ReadRequest) -> object:
    """The JSON value that was sent. Raises InvalidRequest where none was."""
    if not _is_json(request.headers.get("content-type", "")):
        raise InvalidRequest(errors.NO_OBJECT)
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, nested too deeply
        raise (errors.unread(error) if await request.body() else InvalidRequest(errors.NO_OBJECT)) from error


def _is_json(content_type: str) -> bool:
    """As FastAPI decides: `application/json`, or a type that ends with `+json` (RFC 6839)."""
    if content_type == "application/json":
        return True
    message = email.message.Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))
