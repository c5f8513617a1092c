"""Contenders in turns: each run is a process of its own, A B C, C B A, ... until the time is over.

For the benchmarks of training. What else the machine does meets all of them; a median and the
extremes say how much it did. CPU seconds are the figure on a shared machine, wall seconds on a quiet one.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch

from tests.given.running_service import ROOT

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


def run_process(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> None:
    """One run: the program, in this process's environment and what `environment` adds to it.

    Exits with the end of what it wrote to stderr where it fails; raises `subprocess.TimeoutExpired` after `seconds`.
    """
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, timeout=seconds, capture_output=True, text=True
    )
    if ended.returncode:
        sys.exit(f"{' '.join(command[:3])} failed:\n{ended.stderr[-3000:]}")


def machine() -> str:
    """The processor and the versions that decide."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    cpus = f"{len(os.sched_getaffinity(0))} CPUs, {torch.backends.cpu.get_cpu_capability()}"
    return f"{[*models, platform.machine()][0]}, {cpus}; {versions}; load {os.getloadavg()[0]:.1f} at the start"
