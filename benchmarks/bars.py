"""What benchmarks of the service share: what they ran on, medians with their spread, bars as an SVG file.

Imports no torch: what these measure has none.
"""

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "luthier"  # the same figures give the same bytes
from matplotlib import pyplot  # noqa: E402

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    values: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.4g} ({min(self.values):.3g}-{max(self.values):.3g})"


def machine(libraries: Iterable[str]) -> str:
    """The processor, its cores, what else it is doing, and the versions of these libraries."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{[*models, platform.machine()][0]}, {cores} cores, load {os.getloadavg()[0]:.1f} at the end; "
        f"python {platform.python_version()}, {versions}"
    )


def draw(path: Path, title: str, unit: str, groups: Mapping[str, Mapping[str, Spread]]) -> None:
    """Bars by group and contender, each with the extremes of its measurements, on a logarithmic scale."""
    figure, axes = pyplot.subplots(figsize=(2.5 + 1.1 * len(groups), 4.2), layout="constrained")
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        at = [index + place * width for index, group in enumerate(groups.values()) if name in group]
        spreads = [group[name] for group in groups.values() if name in group]
        medians = [spread.median for spread in spreads]
        below = [spread.median - min(spread.values) for spread in spreads]
        above = [max(spread.values) - spread.median for spread in spreads]
        axes.bar(at, medians, width, label=name, yerr=[below, above], error_kw={"linewidth": 0.7})
    axes.set_xticks(
        [index + 0.4 - width / 2 for index in range(len(groups))],
        list(groups),
        rotation=30,
        ha="right",
        fontsize="small",
    )
    axes.set_yscale("log")
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize="medium")
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
