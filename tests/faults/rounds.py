"""How often the tests of faults play their rounds, at which moments, and with which kinds of jobs.

In `make test` once, at moments of one fixed draw; `make soak` plays many rounds, each at new moments.
"""

import os
import random

KINDS = (11, 12)
ROUND_SECONDS = 3.0  # about what the jobs of a round take undisturbed
ROUNDS = int(os.environ.get("LUTHIER_FAULT_ROUNDS", "1"))
FIXED_SEED = 10


def round_seed() -> int:
    """The seed of a round's moments; give LUTHIER_FAULT_SEED to repeat a round that failed."""
    if given := os.environ.get("LUTHIER_FAULT_SEED"):
        return int(given)
    return FIXED_SEED if ROUNDS == 1 else random.SystemRandom().randrange(10**6)
