"""Every fault of the table once, over jobs that are in flight: no job is lost, doubled or changed by one bit.

The order and the moments are one fixed draw; `make soak` draws new ones, many times each.
"""

import pytest

from tests.faults.rounds import round_seed
from tests.faults.soak import Soak
from tests.faults.strikes import STRIKES
from tests.faults.twins import Twins
from tests.production import Production

pytestmark = pytest.mark.slow
JOBS = 6


def test_jobs_outlast_every_fault_as_if_nothing_had_happened(production_set: Production, twins: Twins) -> None:
    soak = Soak(production_set, twins, round_seed())
    soak.run(STRIKES, JOBS)
    assert len(soak.kinds) >= JOBS and len(soak.hits) == len(STRIKES)
    assert soak.broken == []
