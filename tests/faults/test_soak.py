"""A short soak: jobs over two workers while one fault after the other strikes. `make soak` is the long one.

Each strike has a test of its own in test_strikes; here several follow each other over the same jobs.
"""

import random

import pytest

from tests.faults.rounds import random_seed
from tests.faults.soak import Soak
from tests.faults.strikes import STRIKES
from tests.production import Production

pytestmark = pytest.mark.slow
JOBS, NUM_STRIKES = 8, 5


def test_jobs_outlast_several_faults_in_a_row(production_set: Production) -> None:
    seed = random_seed()
    print(f"soak: seed {seed}")  # noqa: T201
    soak = Soak(production_set, seed)
    short = [strike for strike in STRIKES if "30 s" not in strike.name]
    soak.run(random.Random(seed).sample(short, NUM_STRIKES), JOBS)
    assert len(soak.kinds) >= JOBS
    assert soak.broken == []
