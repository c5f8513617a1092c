"""Routes for keys of the role admin: what concerns all projects. `auth` finds the caller of a key.

Monitoring must see that the database is unavailable, although keys are looked up there: a key that was an admin's at
the last lookup stays one while the database is unavailable.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.api.web.auth import KnownKeys, sent_key
from service.domain.errors import Forbidden, Unauthenticated, Unavailable
from service.operations.keys import Caller

LOOK_SECONDS = 2.5  # for one part; a scrape checks the key and then all parts, and Prometheus gives up after 10
LIMIT_KEYS = 64


class Admins:
    """The callers whose keys were an admin's at the last lookup."""

    def __init__(self, known_keys: KnownKeys) -> None:
        self._known_keys = known_keys
        self._callers: dict[str, Caller] = {}

    async def caller(self, request: Request) -> Caller:
        """Which admin sends this request. Raises Unauthenticated, Forbidden or Unavailable."""
        credentials = sent_key(request)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                caller = await self._known_keys.caller(request)
        except (Unavailable, TimeoutError) as error:
            if credentials in self._callers:
                return self._callers[credentials]
            raise Unavailable("The key cannot be checked: the database is unavailable. Please try again.") from error
        except Unauthenticated:
            self._callers.pop(credentials, None)
            raise
        if caller.role != "admin":
            raise Forbidden("This shows all projects: use a key of the role admin (`luthierd keys create --admin`).")
        if len(self._callers) >= LIMIT_KEYS:
            self._callers.clear()
        self._callers[credentials] = caller
        return caller


class AdminRoute(APIRoute):
    """A route without a body, for admins only: the key is checked before anything else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_authenticated(request: Request) -> Response:
            request.state.caller = await request.app.state.admins.caller(request)
            return await handle(request)

        return handle_authenticated
