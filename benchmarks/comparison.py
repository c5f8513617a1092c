"""Contenders in turns: each run is a process of its own, A B C, C B A, ... until the time is over.

For `benchmarks.train_one` and `benchmarks.train_many`. What else the machine does meets all of them; a median and the
extremes say how much it did. CPU seconds are the figure on a shared machine, wall seconds on a quiet one.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import matplotlib
import torch

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "luthier"  # the same figures, the same bytes
from matplotlib import pyplot  # noqa: E402

CPUINFO = Path("/proc/cpuinfo")
T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Of some measurements of one thing."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({min(self.values):.3g}-{max(self.values):.3g})"


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


def draw(path: Path, title: str, unit: str, groups: Mapping[str, Mapping[str, Spread]]) -> None:
    """Bars by group and contender with their extremes, as an SVG file."""
    figure, axes = pyplot.subplots(figsize=(1.6 + 2.2 * len(groups), 3.6), layout="constrained")
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        at = [index + place * width for index, group in enumerate(groups.values()) if name in group]
        spreads = [group[name] for group in groups.values() if name in group]
        medians = [spread.median for spread in spreads]
        below = [spread.median - min(spread.values) for spread in spreads]
        above = [max(spread.values) - spread.median for spread in spreads]
        axes.bar(at, medians, width, label=name, yerr=[below, above], error_kw={"linewidth": 0.8})
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(groups))], list(groups))
    axes.set_yscale("log")
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
