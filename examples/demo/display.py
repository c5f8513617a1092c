"""What the demo shows: a progress bar, two tables. Knows nothing of the service or of its API."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from questions import Question, is_right
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

BASE_LETTERS = 100  # of an answer of the base that are shown: it may ramble


class Stopwatch:
    """Seconds of each phase, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        """Ends a phase; it began where the one before it ended."""
        now = time.monotonic()
        self.seconds[phase], self._last = now - self._last, now


class TrainingBar:
    """The steps of a job as a bar, with its newest losses beside it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("  Training", total=None, losses="")
        self._losses: dict[str, float] = {}

    def show(self, metrics: Mapping[str, Any]) -> None:
        """`metrics` is the data of an event of the type `metrics`."""
        self._losses |= {name: metrics[name] for name in ("train_loss", "valid_loss") if metrics.get(name) is not None}
        losses = "  ".join(f"{name} {loss:.2f}" for name, loss in self._losses.items())
        self._progress.update(self._task, completed=metrics["step"], total=metrics["total_steps"], losses=losses)


@contextmanager
def training_bar(console: Console) -> Iterator[TrainingBar]:
    """A bar at the foot of the screen; what is printed meanwhile stands above it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("steps  {task.fields[losses]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield TrainingBar(progress)


def show_answers(
    console: Console, questions: Sequence[Question], base: Sequence[str], tuned: Sequence[str], num_rows: int
) -> None:
    """Both models' answers side by side, `num_rows` of them, each to a question of another kind."""
    table = Table(title="The same held-out questions to both", title_justify="left", show_lines=True)
    table.add_column("question")
    table.add_column("base", max_width=26)
    table.add_column("tuned")
    first_of_kind = {question.answer: index for index, question in reversed(list(enumerate(questions)))}
    for index in sorted(first_of_kind.values())[:num_rows]:
        question = questions[index]
        answer = _marked(tuned[index], question)
        if not is_right(question, tuned[index]):
            answer.append(f"\n  right: {question.answer}")
        table.add_row(Text(question.text), _marked(base[index], question, BASE_LETTERS), answer)
    console.print(table)


def show_seconds(console: Console, seconds: Mapping[str, float]) -> None:
    """How long each phase took."""
    table = Table(title="Time of each phase", title_justify="left")
    table.add_column("phase")
    table.add_column("seconds", justify="right")
    for phase, value in seconds.items():
        table.add_row(phase, f"{value:.1f}")
    table.add_section()
    table.add_row("total", f"{sum(seconds.values()):.1f}")
    console.print(table)


def _marked(answer: str, question: Question, limit: int = 400) -> Text:
    """A sign and a colour: the sign is for screens without colours."""
    text = " ".join(answer.split()) or "(empty)"
    text = text if len(text) <= limit else f"{text[:limit]}…"
    return Text(f"✓ {text}", "green") if is_right(question, answer) else Text(f"✗ {text}", "red")
