"""One round of a fault: jobs at several stages, the strike at a random moment, and then everything must hold.

Used by the tests (one round of each, at a new moment every time) and by `make soak` (twenty).
"""

import os
import random
import time

from tests.faults.invariants import check_callable, check_one_artifact, check_succeeded
from tests.faults.strikes import Strike
from tests.faults.twins import Twins
from tests.production import Production

KINDS = (11, 12)
ROUND_SECONDS = 3.0  # about what the jobs of a round take undisturbed
ROUNDS = int(os.environ.get("LUTHIER_FAULT_ROUNDS", "1"))


def play(production: Production, twins: Twins, strike: Strike, seed: int) -> None:
    """Raises AssertionError, with the seed, when something does not hold."""
    numbers = random.Random(seed)
    for kind in KINDS:
        twins.undisturbed(kind)
    moment = numbers.uniform(0, ROUND_SECONDS)
    job_ids = {twins.create(kind): kind for kind in KINDS}
    time.sleep(moment)
    print(f"{strike.name}: seed {seed}, {moment:.2f} s after the jobs' creation")  # noqa: T201
    strike.hit(production, numbers)
    for job_id, kind in job_ids.items():
        check_succeeded(production, twins, job_id, kind)
        check_one_artifact(production, job_id)
    job = production.client().fine_tuning.jobs.retrieve(next(iter(job_ids)))
    assert job.fine_tuned_model is not None
    check_callable(production.client(), job.fine_tuned_model)


def random_seed() -> int:
    """A new seed; give LUTHIER_FAULT_SEED to repeat a round that failed."""
    return int(os.environ.get("LUTHIER_FAULT_SEED") or random.SystemRandom().randrange(10**6))
