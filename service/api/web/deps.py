"""Dependencies of routes: the installation's parts, and the caller. Async, so that no thread is needed."""

from typing import Annotated

from fastapi import Depends, Request

from service.installation.context import Context
from service.operations.keys import Caller


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller  # set by auth.ApiRoute
    return caller


ContextDep = Annotated[Context, Depends(_context)]
CallerDep = Annotated[Caller, Depends(_caller)]
