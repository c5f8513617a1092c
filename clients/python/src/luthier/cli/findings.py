"""What a check has found, as tables: of `luthier check` on stdout, of `luthier tune` beside its question on stderr."""

import time
from typing import TYPE_CHECKING, Any, Optional

import typer

from luthier.cli.output import console, messages, note, print_table, prose, size, span
from luthier.cli.session import EXIT_TIMEOUT

if TYPE_CHECKING:
    from rich.console import Console

    from luthier.client import Luthier
    from luthier.generated.models import CheckObject, CheckResult, FileReport, Memory

POLL_SECONDS = 0.3
PROBLEMS_SHOWN = 20


def done(luthier: "Luthier", found: "CheckObject", timeout: Optional[float] = None) -> "CheckObject":
    """The check, once it has ended. Exits with 124 after `timeout` seconds."""
    until = None if timeout is None else time.monotonic() + timeout
    while found.status in ("queued", "running"):
        if until is not None and time.monotonic() > until:
            note(f"luthier: {found.id} is still {found.status} after {timeout:g} s; it continues.")
            raise typer.Exit(EXIT_TIMEOUT)
        time.sleep(POLL_SECONDS)
        found = luthier.fine_tuning.checks.retrieve(found.id)
    return found


def show(result: "CheckResult", *, err: bool = False) -> None:
    """The counts, the bad lines, what the job would do, what a colleague would point out."""
    screen = messages() if err else console()
    files = [("training file", result.training_file), ("validation file", result.validation_file)]
    for name, report in files:
        if report is not None:
            _show_file(name, report, screen)
    if (planned := _planned(result)) != []:
        print_table(["the job", ""], planned, screen)
        if result.duration_unknown:
            prose(result.duration_unknown)
    if (memory := result.memory) is not None:
        _show_memory(memory, screen)
    elif result.memory_unknown:
        prose(result.memory_unknown)
    if result.warnings:
        lines = [(one.message, ", ".join(map(str, (one.lines or [])[:5]))) for one in result.warnings]
        print_table(["worth a look", "lines"], lines, screen)


def _planned(result: "CheckResult") -> list[tuple[str, Any]]:
    plan = result.plan
    if plan is None:
        return []
    settings = ", ".join(f"{key} {value}" for key, value in plan.hyperparameters.items())
    planned: list[tuple[str, Any]] = [("steps", plan.total_steps), ("settings", settings)]
    planned += [("learning rate", f"{plan.learning_rate:g}"), ("tokens", f"{plan.tokens:,}")]
    planned += [("trained tokens", f"{plan.trained_tokens:,}")]
    if (duration := result.duration) is not None:
        interval = f"{span(duration.low)} to {span(duration.high)}"
        planned += [("takes", f"{span(duration.seconds)} (9 of 10 such jobs: {interval})")]
        planned += [("measured jobs", duration.based_on), ("jobs that wait before it", duration.queue_position)]
    return planned


def _show_memory(memory: "Memory", screen: "Console") -> None:
    needs = memory.needs
    parts = [
        ("base weights", needs.base_weights_bytes),
        ("trained parameters", needs.parameter_bytes),
        ("gradients", needs.gradient_bytes),
        ("optimizer", needs.optimizer_bytes),
        ("activations, about", needs.activation_bytes),
        ("beside the base", needs.training_bytes),
    ]
    print_table(["memory", ""], [(name, size(length)) for name, length in parts], screen)
    verdicts = {True: "fits", False: "does not fit", None: "unknown: it has not loaded the base"}
    rows = [
        (one.worker, one.device, _size(one.free_bytes), _size(one.total_bytes), verdicts[one.fits])
        for one in memory.workers
    ]
    if rows:
        print_table(["worker", "device", "free beside the base", "of", "the job"], rows, screen)


def _size(length: Optional[int]) -> str:
    return "" if length is None else size(length)


def _show_file(name: str, report: "FileReport", screen: "Console") -> None:
    if report.counts is not None:
        counts = report.counts.to_dict().items()
        print_table([name, ""], [(key, f"{value:,}") for key, value in counts if isinstance(value, int)], screen)
    elif report.error is not None:
        note(f"{name}: it is invalid. A job on it would end with this error: {report.error.message}")
    if report.problems:
        shown = report.problems[:PROBLEMS_SHOWN]
        print_table(["line", "field", "what is wrong"], [(one.line, one.field, one.reason) for one in shown], screen)
        if report.num_problems > len(shown):
            note(f"{report.num_problems - len(shown)} more; all of them: luthier check -o json")
