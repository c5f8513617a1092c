"""The curve of a loss from the events of a job, as numbers and as a line of eight heights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Optional

from luthier.generated.models import EventObject

HEIGHTS = "▁▂▃▄▅▆▇█"
LOSSES = ("train_loss", "valid_loss", "full_valid_loss")


@dataclass
class Curve:
    """The metrics of a job, by name: steps and values in the order of the steps."""

    points: dict[str, dict[int, float]] = field(default_factory=dict)
    total_steps: Optional[int] = None
    step: int = 0

    def add(self, event: EventObject) -> None:
        """A step that was trained again after an interruption replaces what it was."""
        step = event.data.get("step")
        if event.type != "metrics" or not isinstance(step, int):
            return
        total = event.data.get("total_steps")
        self.total_steps = total if isinstance(total, int) else self.total_steps
        self.step = max(self.step, step)
        for name, value in event.data.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in ("step", "total_steps"):
                self.points.setdefault(name, {})[step] = float(value)

    def values(self, name: str) -> list[float]:
        found = self.points.get(name, {})
        return [found[step] for step in sorted(found)]

    def last(self, name: str) -> Optional[float]:
        values = self.values(name)
        return values[-1] if values else None


def curve_of(events: Iterable[EventObject]) -> Curve:
    curve = Curve()
    for event in events:
        curve.add(event)
    return curve


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """The values as one line: the mean of each of up to `width` stretches, between the lowest and the highest."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [len(values) * number // count for number in range(count + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in zip(edges, edges[1:])]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(HEIGHTS[round((value - low) / span * (len(HEIGHTS) - 1))] for value in means)
