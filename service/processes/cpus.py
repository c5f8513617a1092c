"""How many CPUs this process may use. Needs only the standard library."""

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cpus(quota: Path = _QUOTA) -> int:
    """The CPUs that this process may use: by its affinity, and by the quota of its container (cgroup v2, `cpu.max`)."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return found
    return found if limit == "max" else max(1, min(found, int(limit) // int(period)))
