"""The running production set that the tests of faults share, with the undisturbed twins of its jobs."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.twins import Twins
from tests.given.tiny_models import make_tiny_base
from tests.production import Production, production
from tests.servers.radosgw import check_radosgw


@pytest.fixture(scope="session")
def production_set() -> Iterator[Production]:
    """Servers of its own, because they are broken on purpose. Every test leaves it running."""
    check_radosgw()
    with TemporaryDirectory(prefix="luthier-production-") as folder:
        base = make_tiny_base(Path(folder) / "base")
        with production(Path(folder), base) as made:
            yield made


@pytest.fixture(scope="session")
def twins(production_set: Production) -> Twins:
    return Twins(production_set)
