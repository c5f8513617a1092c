"""The API with its pages, and people who look at them."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from service.api.app import create_app
from service.dashboard.app import add_dashboard
from service.installation.context import Context
from tests.given.visitors import sign_in, visitor


@pytest.fixture
async def app(ctx: Context) -> FastAPI:
    """The API with its pages, in this process."""
    return add_dashboard(create_app(ctx))


@pytest.fixture
async def nobody(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who has not signed in."""
    async with visitor(app) as client:
        yield client


@pytest.fixture
async def member(app: FastAPI, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody of the default project, signed in."""
    async with visitor(app) as client:
        await sign_in(client, key)
        yield client


@pytest.fixture
async def foreigner(app: FastAPI, stranger_key: str) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody of another project, signed in."""
    async with visitor(app) as client:
        await sign_in(client, stranger_key)
        yield client
