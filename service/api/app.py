"""The ASGI application of one installation: routes, layers, and what opens and closes with the process.

Start of every journey. A request passes headers (outermost), errors, auth (in the route), then its route.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from service.api.web import errors
from service.api.web.admins import Admins
from service.api.web.auth import KnownKeys
from service.api.web.headers import ResponseHeaders
from service.api.web.openapi import add_routes, document
from service.api.web.traffic import Traffic
from service.gateway.forward import Gateway, Usage, log_usage
from service.gateway.limits.memory import RateLimits
from service.gateway.limits.redis import SharedRateLimits
from service.installation.context import Context
from service.operations import chores
from service.queue.redis import end


def create_app(ctx: Context) -> FastAPI:
    """The app; its lifespan does the chores and closes `ctx`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(chores.run(ctx))
        yield
        await end(sweeping)
        await app.state.gateway.close()
        await ctx.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False)
    app.state.context = ctx
    app.state.known_keys = KnownKeys(ctx)
    app.state.admins = Admins(app.state.known_keys)
    app.state.rate_limits = _rate_limits(ctx)
    app.state.gateway = Gateway(ctx.engines, ctx.settings.engine_timeout_seconds, _accounting(app))
    add_routes(app)
    _serve_document(app)
    errors.install(app)
    app.state.traffic = Traffic(app.routes, ctx.catalogue.bases)
    app.add_middleware(ResponseHeaders, traffic=app.state.traffic)
    return app


def _rate_limits(ctx: Context) -> RateLimits:
    return RateLimits(ctx.settings) if ctx.redis is None else SharedRateLimits(ctx.settings, ctx.redis)


def _accounting(app: FastAPI) -> Callable[[Usage], None]:
    """Who hears what an answer cost: the log, the metrics, and the limits of its key."""

    def account(usage: Usage) -> None:
        log_usage(usage)
        app.state.traffic.used(usage)
        app.state.rate_limits.settle(usage)

    return account


def _serve_document(app: FastAPI) -> None:
    async def openapi() -> JSONResponse:
        return JSONResponse(document())

    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
