"""/health: whether this process can serve requests. Needs no key, so that a load balancer can call it."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from service.api.web.deps import ContextDep
from service.domain.errors import Unavailable
from service.gateway.client import engine_health

router = APIRouter(tags=["Health"])

State = Literal["ok", "unavailable"]


class Health(BaseModel):
    """`status` is about the API itself; an unavailable engine affects completions only."""

    status: State
    database: State
    engines: dict[str, State]


@router.get(
    "/health", operation_id="health", responses={503: {"model": Health, "description": "The database is unavailable"}}
)
async def health(ctx: ContextDep, response: Response) -> Health:
    """Report whether the service works: 200 if its database responds, else 503."""
    database = await _database(ctx)
    response.status_code = 200 if database == "ok" else 503
    engines = {url: _state(healthy) for url, healthy in (await engine_health(ctx.engines)).items()}
    return Health(status=database, database=database, engines=engines)


async def _database(ctx: ContextDep) -> State:
    try:
        await ctx.database.check()
    except Unavailable:
        return "unavailable"
    return "ok"


def _state(healthy: bool) -> State:
    return "ok" if healthy else "unavailable"
