"""An installation in the test's folder, and its first caller, for tests that work without HTTP: see `workshop`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.operations.context import Context
from service.operations.keys import Caller
from tests.e2e.workshop import first_caller, installation


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path) as ctx:
        yield ctx


@pytest.fixture
async def caller(ctx: Context) -> Caller:
    return await first_caller(ctx)
