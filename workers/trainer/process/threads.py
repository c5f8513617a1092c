"""How many CPU threads a trainer computes with, and how each of its jobs keeps the number that it began with.

The number decides the order of sums, and so last bits: it is part of a job's environment. So it follows from the base's
size and the machine by a rule, and not from a race at each start, which a busy moment could decide otherwise; a job
that continues elsewhere takes its number along. `benchmarks/trainer_threads.py` shows what each number costs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_PARAMETERS = 20_000_000  # 2 threads were slower than 1 at 4 M; where it turns was not measured
MOST_THREADS = 8  # beyond, steps of a few thousand tokens gain little
MOST_TRAINERS = 4  # of one base in a worker


def usual_threads(num_parameters: int, num_cpus: int) -> int:
    """For a base of that size, where `num_cpus` may be used and no setting says otherwise."""
    return 1 if num_parameters < SMALL_PARAMETERS else max(1, min(num_cpus, MOST_THREADS))


def usual_trainers(num_cpus: int, threads: int, copy_bytes: int, free_bytes: int) -> int:
    """How many trainers use `num_cpus`, of `threads` each, where a further one needs `copy_bytes` for itself.

    Where one computes with several threads, a second one fills the time in which those wait for each other: two jobs
    at 135 million parameters took 76 seconds instead of 102 on two cores. Those after the first share half of what
    is free.
    """
    useful = min(num_cpus, MOST_TRAINERS, max(num_cpus // threads, 2))
    return max(1, min(useful, 1 + free_bytes // (2 * copy_bytes)))


@contextmanager
def threads_in_force(count: int) -> Iterator[None]:
    """Inside, torch computes with `count` threads."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
