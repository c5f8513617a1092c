"""The running service of end-to-end tests that only make and read objects of their own."""

import os
from collections.abc import Iterator

import pytest

from service.processes.forks import ADDRESS, fork_server
from service.recipes.base import Base
from tests.given.running_service import RunningService, running
from tests.given.tiny_models import make_tiny_base


@pytest.fixture(scope="session")
def shared_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Of random weights, under the name that examples/clients say."""
    return make_tiny_base(tmp_path_factory.mktemp("base")).model_copy(update={"id": "luthier-tiny"})


@pytest.fixture(scope="session")
def shared_service(shared_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`luthierd up` on `shared_base`. Whoever uses it leaves it as it runs: no kill, no stop, every slot free."""
    folder = tmp_path_factory.mktemp("service") / "data"
    with running(folder, shared_base, snapshot_steps=3) as service:
        yield service


@pytest.fixture(scope="session")
def fork_address() -> Iterator[str]:
    """Where a fork server for the tests of this process listens; they say whether they want it."""
    with fork_server():
        yield os.environ.pop(ADDRESS, "")


@pytest.fixture
def forks(fork_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that this test's process starts are forked: their imports have been done once."""
    monkeypatch.setenv(ADDRESS, fork_address)
