"""The running service of end-to-end tests that only make and read objects of their own."""

from collections.abc import Iterator

import pytest

from service.recipes.base import Base
from tests.given.running_service import RunningService, running
from tests.given.tiny_models import make_tiny_base


@pytest.fixture(scope="session")
def shared_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Of random weights, under the name that examples/clients say."""
    base = make_tiny_base(tmp_path_factory.mktemp("base"), tunings=("lora", "prompt", "full"))
    return base.model_copy(update={"id": "luthier-tiny"})


@pytest.fixture(scope="session")
def shared_service(shared_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`luthierd up` on `shared_base`. Whoever uses it leaves it as it runs: no kill, no stop, every slot free."""
    folder = tmp_path_factory.mktemp("service") / "data"
    with running(folder, shared_base, snapshot_steps=3) as service:
        yield service
