"""Contenders in turns: each run is a process of its own, A B C, C B A, ... until the time is over.

For `benchmarks.train_one` and `benchmarks.train_many`. What else the machine does meets all of them; a median and the
extremes say how much it did. CPU seconds are the figure on a shared machine, wall seconds on a quiet one.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch

CPUINFO = Path("/proc/cpuinfo")
T = TypeVar("T")


def in_turns(contenders: Mapping[str, Callable[[], T]], deadline: float, rounds: int) -> dict[str, list[T]]:
    """What each returned, run by run. A round is begun before `deadline` (of time.monotonic) only; one always is."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    for turn in range(rounds):
        if turn and time.monotonic() > deadline:
            break
        for name in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(contenders[name]())
    return found


def machine() -> str:
    """The processor and the versions that decide."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    cpus = f"{len(os.sched_getaffinity(0))} CPUs, {torch.backends.cpu.get_cpu_capability()}"
    return f"{[*models, platform.machine()][0]}, {cpus}; {versions}; load {os.getloadavg()[0]:.1f} at the start"
