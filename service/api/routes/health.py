"""/health: whether this process can work. Without a key, so that a load balancer may ask."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from service.api.web.deps import ContextDep
from service.domain.errors import Unavailable
from service.gateway.client import engine_health

router = APIRouter(tags=["Health"])

State = Literal["ok", "away"]


class Health(BaseModel):
    """`status` is about the API itself; an engine that is away stops completions only."""

    status: State
    database: State
    engines: dict[str, State]


@router.get("/health", operation_id="health", responses={503: {"model": Health, "description": "The database is away"}})
async def health(ctx: ContextDep, response: Response) -> Health:
    """Tell whether the service works: 200 when its database answers, else 503."""
    database = await _database(ctx)
    response.status_code = 200 if database == "ok" else 503
    engines = {url: _state(answers) for url, answers in (await engine_health(ctx.engines)).items()}
    return Health(status=database, database=database, engines=engines)


async def _database(ctx: ContextDep) -> State:
    try:
        await ctx.database.check()
    except Unavailable:
        return "away"
    return "ok"


def _state(answers: bool) -> State:
    return "ok" if answers else "away"
