"""Every fault of the table, at random moments from a printed seed: no job is lost, doubled or changed by one bit."""

import pytest

from tests.faults.rounds import ROUNDS, play, random_seed
from tests.faults.strikes import STRIKES, Strike
from tests.faults.twins import Twins
from tests.production import Production

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("round_number", range(ROUNDS))
@pytest.mark.parametrize("strike", STRIKES, ids=lambda strike: strike.name)
def test_jobs_end_as_if_nothing_had_happened(
    production_set: Production, twins: Twins, strike: Strike, round_number: int
) -> None:
    play(production_set, twins, strike, random_seed())
