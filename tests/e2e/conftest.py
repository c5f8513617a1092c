"""The running services of end-to-end tests that only make and read objects of their own."""

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


@pytest.fixture(scope="session")
def measured_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`luthierd up` on the bundled base, called `measured`, as benchmarks start it. Its trainer may be killed."""
    from benchmarks.train_many import service_on  # noqa: PLC0415  it draws: most tests of this folder need none of it
    from benchmarks.train_one import TINY  # noqa: PLC0415

    with service_on("tiny", TINY, tmp_path_factory.mktemp("measured")) as service:
        yield service
