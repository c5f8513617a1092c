"""From `Authorization: Bearer ...`, and the project that it selects, to a Caller, before a byte of the body is read.

Clients of Azure send the key as `api-key: ...`.
Keys are cached for at most CACHE_SECONDS, so a revoked one stops working within that time.
"""

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.api.web.bodies import GENERATION, PLAIN, read_within
from service.api.web.queries import check_query
from service.domain.errors import Unauthenticated
from service.domain.shared_reads import SharedReads
from service.installation.context import Context
from service.operations import keys
from service.operations.keys import Caller

log = structlog.get_logger()
SELECTING_HEADERS = ("OpenAI-Organization", "OpenAI-Project")
CACHE_SECONDS = 5.0
CACHE_KEYS = 1024

SIGNED_IN = "luthier.signed_in"  # in the scope of a request that carries a sign-in instead of a key: who sends it

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
SignedInCaller = Callable[[], Coroutine[Any, Any, Caller]]


class KnownKeys:
    """The callers of recently used keys."""

    def __init__(self, ctx: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._ctx = ctx
        self._clock = clock
        self._callers: dict[tuple[str, ...], tuple[Caller, float]] = {}
        self._reads: SharedReads[tuple[str, ...], Caller] = SharedReads()

    async def caller(self, request: Request) -> Caller:
        """Who sends this request. Raises Unauthenticated."""
        signed_in: SignedInCaller | None = request.scope.get(SIGNED_IN)
        if signed_in is not None:
            return await signed_in()
        claimed = (sent_key(request), *(request.headers.get(name, "").strip() for name in SELECTING_HEADERS))
        known = self._callers.get(claimed)
        if known is not None and self._clock() < known[1]:
            return known[0]
        self._callers.pop(claimed, None)
        return await self._reads.read(claimed, partial(self._read, claimed))

    async def _read(self, claimed: tuple[str, ...]) -> Caller:
        caller = await keys.authenticate(self._ctx, *claimed)
        if len(self._callers) >= CACHE_KEYS:
            self._callers.clear()
        if caller.ignored:
            log.info("key.headers_ignored", key_id=caller.key_id, headers=caller.ignored)
        self._callers[claimed] = (caller, self._clock() + CACHE_SECONDS)
        return caller


class ApiRoute(APIRoute):
    """A route that authenticates its caller first, then checks its query and reads a JSON body within `body_limits`."""

    body_limits = PLAIN

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        reads_json = self.body_field is not None

        async def handle_authenticated(request: Request) -> Response:
            request.state.caller = await request.app.state.known_keys.caller(request)
            check_query(request)
            if request.method == "DELETE":
                return await _delete(request, handle)
            return await handle(await read_within(request, self.body_limits) if reads_json else request)

        return handle_authenticated


class GenerationRoute(ApiRoute):
    """A route whose body holds prompts."""

    body_limits = GENERATION


async def _delete(request: Request, handle: Handler) -> Response:
    """Tried twice where it failed on a full disk, of which some is kept for it."""
    context: Context = request.app.state.context
    return await context.reserve.backed(lambda: handle(request))


def sent_key(request: Request) -> str:
    """The key in `Authorization`, or where that is absent in Azure's `api-key`. Raises Unauthenticated."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if not scheme and (key := request.headers.get("api-key", "").strip()):
        return key
    if scheme.lower() != "bearer" or not bearer.strip():
        raise Unauthenticated(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY). `luthierd keys create` makes one."
        )
    return bearer.strip()
