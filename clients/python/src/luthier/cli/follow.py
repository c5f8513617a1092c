"""Following a job: its events on stderr, with a bar and a sparkline of the loss where there is a terminal.

Ctrl-C ends the watching and never the job.
"""

from typing import TYPE_CHECKING, Optional

import typer

from luthier.cli.output import messages, note, visible, when
from luthier.cli.session import EXIT_INTERRUPTED, EXIT_TIMEOUT, client

if TYPE_CHECKING:
    from rich.progress import BarColumn, Progress

    from luthier.cli.curve import Curve
    from luthier.client import Luthier
    from luthier.generated.models import EventObject, JobObject


WIDTH = 24  # of the bar and of the sparkline, where there is room
SHORTEST = 4  # of the sparkline


def follow(luthier: "Luthier", job_id: str, *, quiet: bool = False, timeout: Optional[float] = None) -> "JobObject":
    """The job when it has ended. Exits with 124 after `timeout` seconds and with 130 after Ctrl-C."""
    from luthier.cli.curve import Curve
    from luthier.errors import WaitTimeoutError

    curve = Curve()
    screen = messages()
    try:
        if quiet:
            return luthier.wait(job_id, on_event=curve.add, timeout_seconds=timeout)
        if not screen.is_terminal:
            return luthier.wait(job_id, on_event=_line, timeout_seconds=timeout)
        progress, bar = _bar(screen)
        with progress:
            shown = _Shown(progress, bar, curve)
            return luthier.wait(job_id, on_event=shown.add, timeout_seconds=timeout)
    except WaitTimeoutError:
        note(f"luthier: {job_id} has not ended within {timeout:g} seconds. It continues: luthier wait {job_id}")
        raise typer.Exit(EXIT_TIMEOUT) from None
    except KeyboardInterrupt:
        note(f"\nThe job continues. Follow it again: luthier watch {job_id}\nEnd it: luthier jobs cancel {job_id}")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def followed(job_id: str, *, quiet: bool = False, timeout: Optional[float] = None) -> "JobObject":
    with client() as luthier:
        return follow(luthier, job_id, quiet=quiet, timeout=timeout)


def describe(event: "EventObject") -> str:
    """One line: time, level if it is not `info`, message."""
    level = "" if event.level == "info" else f"{event.level}: "
    return f"{when(event.created_at)}  {level}{event.message}"


def _line(event: "EventObject") -> None:
    """Where there is no terminal: messages only, no line per step."""
    if event.type == "message":
        note(describe(event))


class _Shown:
    """Events on a terminal: messages stay above the bar, metrics move it."""

    def __init__(self, progress: "Progress", bar: "BarColumn", curve: "Curve") -> None:
        self._progress, self._curve = progress, curve
        self._bar = bar
        self._task = progress.add_task("training", total=None, loss="", spark="")

    def add(self, event: "EventObject") -> None:
        from rich.text import Text

        from luthier.cli.curve import sparkline

        if event.type == "message":
            self._progress.console.print(Text(visible(describe(event))))
            return
        self._curve.add(event)
        loss = self._curve.last("train_loss")
        steps = len(str(self._curve.total_steps or self._curve.step)) * 2 + 1
        self._bar.bar_width, spark = widths(self._progress.console.width, steps)
        self._progress.update(
            self._task,
            completed=self._curve.step,
            total=self._curve.total_steps,
            loss="" if loss is None else f"loss {loss:.3f}",
            spark=sparkline(self._curve.values("train_loss"), spark) if spark else "",
        )


def widths(columns: int, steps: int) -> tuple[int, int]:
    """Of the bar and of the sparkline, where the terminal has `columns` and the counter of steps takes `steps`.

    What says more comes first: the counter, the loss and the time left, then the bar, then the sparkline.
    """
    room = columns - len("training") - steps - len("loss 12.345") - len("12:34:56") - 5  # spaces between them
    bar = min(WIDTH, max(0, room))
    spark = min(WIDTH, max(0, room - bar))
    return max(1, bar), spark if spark >= SHORTEST else 0


def _bar(screen: object) -> "tuple[Progress, BarColumn]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    assert isinstance(screen, Console)
    bar = BarColumn(bar_width=widths(screen.width, len("0/?"))[0])
    progress = Progress(
        TextColumn("{task.description}"),
        bar,
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]} {task.fields[spark]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=screen,
        transient=False,
    )
    return progress, bar
