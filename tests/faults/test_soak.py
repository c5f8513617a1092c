"""A short soak: twenty jobs over two workers while one fault after the other strikes. `make soak` is the long one."""

import pytest

from tests.faults.rounds import random_seed
from tests.faults.soak import Soak
from tests.faults.strikes import STRIKES
from tests.production import Production

pytestmark = pytest.mark.slow
JOBS = 20


def test_twenty_jobs_outlast_every_fault_but_the_long_hang(production_set: Production) -> None:
    seed = random_seed()
    print(f"soak: seed {seed}")  # noqa: T201
    soak = Soak(production_set, seed)
    soak.run([strike for strike in STRIKES if "30 s" not in strike.name], JOBS)
    assert len(soak.kinds) >= JOBS
    assert soak.broken == []
