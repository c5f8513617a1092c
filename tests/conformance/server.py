"""The service as it is, plus one route that only tests have: POST /v1/_test/reset renews the seeds.

`python -m tests.conformance.server`: settings from the environment as ever; ends with its stdin.
"""

import asyncio
import os
import signal
import threading

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.app import create_app
from service.installation.context import Context
from service.installation.create import create_context
from service.settings import logs
from service.settings.settings import Settings
from tests.given import seeds
from tests.given.installation import give_schema

RESET_PATH = "/v1/_test/reset"
WRITE_NOTHING = ("/v1/completions", "/v1/chat/completions")


class WithReset:
    """`app`, behind the reset route, which has nothing to do where the requests since the last one only read."""

    def __init__(self, app: ASGIApp, ctx: Context) -> None:
        self._app = app
        self._ctx = ctx
        self._written = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == RESET_PATH:
            if self._written:
                await seeds.renew(self._ctx)
            self._written = False
            await Response(status_code=204)(scope, receive, send)
        else:
            self._written |= _writes(scope)
            await self._app(scope, receive, send)


def _writes(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] != "GET" and scope["path"] not in WRITE_NOTHING


async def serve(settings: Settings) -> None:
    """Until SIGTERM."""
    logs.configure(settings.log_level)
    await give_schema(settings)
    ctx = create_context(settings)
    await seeds.install(ctx)
    await seeds.renew(ctx)
    app = WithReset(create_app(ctx), ctx)
    await uvicorn.Server(uvicorn.Config(app, host=settings.host, port=settings.port, log_config=None)).serve()


def _end_with_stdin() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(serve(Settings()))
