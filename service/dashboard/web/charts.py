"""Small charts that are drawn here, as the points of an SVG line; the large ones are uPlot's, in `static/chart.js`."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, MARGIN = 120, 28, 2


@dataclass(frozen=True)
class Sparkline:
    """`points` for `<polyline>`; `label` says the same in words."""

    points: str
    label: str
    last: float


def sparkline(values: Sequence[float]) -> Sparkline | None:
    """The values as a line of WIDTH by HEIGHT; None for fewer than two."""
    if len(values) < 2:
        return None
    low, high = min(values), max(values)
    scale = (HEIGHT - 2 * MARGIN) / (high - low) if high > low else 0.0
    width = WIDTH / (len(values) - 1)
    points = " ".join(
        f"{index * width:.1f},{HEIGHT - MARGIN - (value - low) * scale:.1f}" for index, value in enumerate(values)
    )
    return Sparkline(points, f"Training loss from {values[0]:.3g} to {values[-1]:.3g}", values[-1])


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: its place and height in a drawing of 100 by 100, and what it counts."""

    x: float
    width: float
    height: float
    low: int
    high: int
    count: int


def histogram(values: Sequence[int], bars: int = 24) -> list[Bar]:
    """How often values are in each of `bars` equal ranges; none for no values."""
    if not values:
        return []
    low, high = min(values), max(values)
    step = max(1, -(-(high - low + 1) // bars))
    counts = [0] * (((high - low) // step) + 1)
    for value in values:
        counts[(value - low) // step] += 1
    width, tallest = 100 / len(counts), max(counts)
    return [
        Bar(index * width, width * 0.86, 100 * count / tallest, low + index * step, low + (index + 1) * step - 1, count)
        for index, count in enumerate(counts)
    ]
