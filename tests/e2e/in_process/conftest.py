"""The installation that most of these tests have; those that need another one make it with `workshop.installation`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.installation.context import Context
from tests.given.running_service import free_ports
from tests.given.worker import installation


@pytest.fixture(autouse=True)
def forking(forks: None) -> None:
    """Trainers are forked, as those of a running service are."""


@pytest.fixture
def port() -> int:
    """Nobody listens there yet."""
    return free_ports(1)[0]


@pytest.fixture
async def ctx(tmp_path: Path) -> AsyncIterator[Context]:
    """A fresh installation on SQLite with one tiny base, which nobody serves."""
    async with installation(tmp_path) as ctx:
        yield ctx
