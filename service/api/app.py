"""The ASGI application of one installation: routes, layers, and what opens and closes with the process.

Every request starts here: it passes headers (outermost), errors, auth (in the route), then its route. Requests for an
engine take a shorter way from the headers on (`direct`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse

from service.api.direct import DirectRoutes
from service.api.openapi import document, routes
from service.api.routes.health import Parts
from service.api.web import errors
from service.api.web.addresses import Addresses
from service.api.web.admins import Admins
from service.api.web.auth import KnownKeys
from service.api.web.headers import EXPOSED, ResponseHeaders
from service.api.web.job_feeds import JobFeeds
from service.api.web.traffic import Traffic
from service.installation.context import Context
from service.operations import chores, webhook_deliveries
from service.queue.redis import end


def create_app(ctx: Context, number: int | None = None) -> FastAPI:
    """The app; its lifespan runs the chores and closes `ctx`. `number` is this process', where there are several."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping, sending = asyncio.create_task(chores.run(ctx)), asyncio.create_task(webhook_deliveries.run(ctx))
        yield
        await end(sweeping)
        await end(sending)
        await ctx.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, redirect_slashes=False, routes=routes())
    app.state.context = ctx
    app.state.known_keys = KnownKeys(ctx)
    app.state.job_feeds = JobFeeds()
    app.state.parts = Parts(ctx)
    app.state.admins = Admins(app.state.known_keys)
    _serve_document(app)
    errors.install(app)
    app.state.traffic = Traffic(app.routes, ctx.catalogue.bases, number)
    app.add_middleware(DirectRoutes)  # the first that is added is the innermost
    app.add_middleware(ResponseHeaders, traffic=app.state.traffic)
    if origins := ctx.settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=EXPOSED
        )
    app.add_middleware(Addresses)
    return app


def _serve_document(app: FastAPI) -> None:
    async def openapi() -> JSONResponse:
        return JSONResponse(document())

    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
