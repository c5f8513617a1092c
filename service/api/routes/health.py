"""/livez, /readyz, /health: whether this process runs, can serve requests, and what of its surroundings responds.

They need no key, so that a load balancer can call them; so what they cost is bounded, however often they are called.
"""

import asyncio
import time
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from service.api.web.deps import ContextDep
from service.domain.errors import Unavailable
from service.gateway.client import engine_health
from service.installation.context import Context
from service.storage import StorageError, StorageUnusable

router = APIRouter(tags=["Health"])

State = Literal["ok", "unavailable"]
CHECK_SECONDS = 5.0  # the longest that a part may take
KEPT_SECONDS = 1.0  # how long a finding is returned again


class Alive(BaseModel):
    """The process responds."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """`status` is the database's: it must take writes. Storage that is unavailable affects files and jobs only."""

    status: State
    database: State
    storage: State


class Health(Ready):
    """As `/readyz`, with the engines: one that is unavailable affects completions only."""

    engines: dict[str, State]


class Parts:
    """The last findings of one process; callers at the same time share one look."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._looking = asyncio.Lock()
        self._found: tuple[Ready, float] | None = None

    async def look(self) -> Ready:
        async with self._looking:
            if self._found is None or time.monotonic() - self._found[1] >= KEPT_SECONDS:
                self._found = (await self._look(), time.monotonic())
            return self._found[0]

    async def _look(self) -> Ready:
        database, storage = await asyncio.gather(self._database(), self._storage())
        return Ready(status=database, database=database, storage=storage)

    async def _database(self) -> State:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._ctx.database.check_writes()
        except (Unavailable, TimeoutError):
            return "unavailable"
        return "ok"

    async def _storage(self) -> State:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._ctx.storage.check()
        except (StorageError, StorageUnusable, TimeoutError):
            return "unavailable"
        return "ok"


@router.get("/livez", operation_id="livez")
async def livez() -> Alive:
    """Report that the process responds. Nothing else is looked at: a restart would not help."""
    return Alive()


@router.get(
    "/readyz", operation_id="readyz", responses={503: {"model": Ready, "description": "The database takes no writes"}}
)
async def readyz(request: Request, response: Response) -> Ready:
    """Report whether requests should be sent here: 200 if the database takes writes, else 503."""
    found = await _parts(request).look()
    response.status_code = 200 if found.status == "ok" else 503
    return found


@router.get(
    "/health", operation_id="health", responses={503: {"model": Health, "description": "The database takes no writes"}}
)
async def health(ctx: ContextDep, request: Request, response: Response) -> Health:
    """Report whether the service works: 200 if its database takes writes, else 503."""
    found = await _parts(request).look()
    response.status_code = 200 if found.status == "ok" else 503
    engines = {url: _state(healthy) for url, healthy in (await engine_health(ctx.engines)).items()}
    return Health(**found.model_dump(), engines=engines)


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def _state(healthy: bool) -> State:
    return "ok" if healthy else "unavailable"
