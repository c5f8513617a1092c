"""`luthier tune`: from a file of rows to a tuned model, in one command."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from luthier.cli.output import Format, Output, messages, note, print_record, print_table, size
from luthier.cli.questions import asked, confirmed
from luthier.cli.session import EXIT_ERROR, EXIT_FAILED, EXIT_GATE, EXIT_USAGE, VERDICTS, client
from luthier.cli.uploads import Uploads, check_base

if TYPE_CHECKING:
    from luthier.cli.reports import Gate, Report
    from luthier.client import Luthier
    from luthier.generated.models import CheckObject, JobObject

ServeAs = Annotated[
    Optional[str], typer.Option(help="lora: engines load the LoRA that is computed from what is trained.")
]
ServeRank = Annotated[
    Optional[int], typer.Option(help="The rank of that LoRA, such as 16 for vLLM; alone it means --serve-as lora.")
]


@dataclass(frozen=True)
class Plan:
    """What will be asked of the service. What is None or empty is not sent: the service's defaults hold."""

    file: Path
    base: str
    validation: Optional[Path]
    method: Optional[str]
    hyperparameters: dict[str, Any]
    tuning: Optional[str]
    tuning_settings: dict[str, Any]
    served: dict[str, Any]
    suffix: Optional[str]
    seed: Optional[int]

    def files(self) -> dict[str, Path]:
        """By the parameter that they are sent as."""
        files = {"training_file": self.file}
        return files if self.validation is None else {**files, "validation_file": self.validation}

    def body(self) -> dict[str, Any]:
        """The fields of the request that say how it is tuned."""
        return method_and_tuning(self.method, self.hyperparameters, self.tuning, self.tuning_settings, self.served)


@dataclass
class Reports:
    """What is checked and written when the job has ended."""

    gates: "Sequence[Gate]" = ()
    junit: Optional[Path] = None
    sarif: Optional[Path] = None
    metrics: Optional[Path] = None
    summary: Optional[Path] = None
    lost: list[Path] = field(default_factory=list)  # those that could not be written after all

    def check_paths(self, rows: Sequence[Path]) -> None:
        """Raises BadParameter for a file that could not be written at the end, or would replace rows or another one."""
        taken = {path.resolve(): "the file of rows" for path in rows}
        for name in ("junit", "sarif", "metrics", "summary"):
            path: Optional[Path] = getattr(self, name)
            if path is None:
                continue
            option, folder, same = f"--{name}", path.resolve().parent, path.resolve()
            if same in taken:
                raise typer.BadParameter(f"'{path}' is {taken[same]} already.", param_hint=option)
            if not path.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
                raise typer.BadParameter(f"'{path}' cannot be made: is '{folder}' a folder?", param_hint=option)
            taken[same] = f"the file of {option}"

    def of_job(self, luthier: "Luthier", plan: Plan, job: "JobObject") -> list[str]:
        """Writes the files that were asked for; returns the gates that are not met."""
        if self == Reports():
            return []
        from luthier.cli.reports import Report

        events = list(luthier.fine_tuning.jobs.events.list(job.id, limit=1000))[::-1]
        report = Report.of_job(job, events, plan.files(), self.gates)
        self._write(report)
        return report.missed()

    def of_check(self, plan: Plan, check: "CheckObject") -> None:
        """The same, where no job could start."""
        if self == Reports():
            return
        from luthier.cli.reports import Report

        self._write(Report.of_check(check, plan.files(), self.gates))

    def _write(self, report: "Report") -> None:
        from luthier.cli import reports

        self._file(self.junit, "w", report, reports.junit)
        self._file(self.sarif, "w", report, reports.sarif)
        self._file(self.metrics, "w", report, reports.metrics)
        self._file(self.summary, "a", report, reports.summary)

    def _file(self, path: Optional[Path], mode: str, report: "Report", text: "Callable[[Report], str]") -> None:
        """One that cannot be written is said, and costs neither the others nor the verdict."""
        if path is None:
            return
        try:
            with path.open(mode, encoding="utf-8", errors="backslashreplace") as file:
                file.write(text(report))
        except OSError as error:
            note(f"luthier: {path}: {error.strerror}. The report is lost.")
            self.lost.append(path)


def tune(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="Rows as JSONL.")],
    base: Annotated[
        Optional[str], typer.Option(help="The base, or a tuned model to continue from. Asked for if it is missing.")
    ] = None,
    validation: Annotated[
        Optional[Path], typer.Option(exists=True, dir_okay=False, readable=True, help="Rows that are not trained.")
    ] = None,
    method: Annotated[
        Optional[str], typer.Option(help="The loss: supervised (the default), dpo or another of docs/methods.md.")
    ] = None,
    tuning: Annotated[
        Optional[str], typer.Option(help="What moves: lora (the default), full, partial or another of docs/methods.md.")
    ] = None,
    setting: Annotated[
        Optional[list[str]],
        typer.Option("--set", help="A setting: n_epochs=3 of the method, lora.r=16 of the tuning. May be repeated."),
    ] = None,
    serve_as: ServeAs = None,
    serve_rank: ServeRank = None,
    suffix: Annotated[Optional[str], typer.Option(help="A part of the tuned model's name.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="The same seed gives the same weights.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Start the job and do not follow it.")] = False,
    gate: Annotated[
        Optional[list[str]],
        typer.Option(help="What the last value of a metric must be: full_valid_loss<0.5. Else the exit code is 3."),
    ] = None,
    junit: Annotated[
        Optional[Path], typer.Option(dir_okay=False, writable=True, help="Write the result as JUnit's XML.")
    ] = None,
    sarif: Annotated[
        Optional[Path], typer.Option(dir_okay=False, writable=True, help="Write invalid rows as SARIF, at their lines.")
    ] = None,
    metrics: Annotated[
        Optional[Path], typer.Option(dir_okay=False, writable=True, help="Write the metrics and the gates as JSON.")
    ] = None,
    summary: Annotated[
        Optional[Path], typer.Option(dir_okay=False, writable=True, help="Append a summary in Markdown.")
    ] = None,
    output: Output = Format.table,
) -> None:
    """Upload FILE, check every row, show what the job will do and take, ask, and follow it to its end.

    The exit code is the verdict. Ctrl-C leaves the job running. With --yes and --detach nothing is checked before: the
    job itself does that.

    Example: luthier tune training.jsonl --base luthier-tiny --set n_epochs=6 --set lora.r=8
    """
    from luthier.cli.follow import follow

    gates = _gates(gate or [])
    reports = Reports(gates, junit, sarif, metrics, summary)
    if detach and reports != Reports():
        raise typer.BadParameter("A job that is not followed has no result: leave out --detach.")
    reports.check_paths([file] if validation is None else [file, validation])
    hyperparameters, tuning, tuning_settings = parse_settings(setting or [], tuning)
    served = served_form(serve_as, serve_rank, tuning)
    with client() as luthier:
        chosen = base or _asked_base(luthier)
        plan = Plan(file, chosen, validation, method, hyperparameters, tuning, tuning_settings, served, suffix, seed)
        _show(plan)
        if not yes and not sys.stdin.isatty():
            note("luthier: there is no terminal to ask on; start without asking: -y")
            raise typer.Exit(EXIT_USAGE)
        check_base(luthier, chosen)
        uploads = Uploads(luthier)
        with uploads.deleted_without_job():
            uploads.send(plan.files())
            if not (yes and detach):
                _checked(luthier, plan, uploads, reports)
            if not yes and not confirmed("Start?"):
                raise typer.Exit(0)
        with uploads.deleted_if_refused():
            job = _create(luthier, plan, uploads)
        note(f"Created {job.id}. Follow it again: luthier watch {job.id}")
        if detach:
            _show_job(job, output)
            return
        job = follow(luthier, job.id)
        _show_job(job, output)
        missed = reports.of_job(luthier, plan, job)
    for miss in missed:
        note(f"luthier: the gate is not met: {miss}")
    verdict = EXIT_GATE if missed else VERDICTS[job.status]
    raise typer.Exit(verdict or (EXIT_ERROR if reports.lost else 0))


def finish(job: "JobObject", output: Format) -> None:
    """Prints a job that has ended, and exits with its verdict."""
    _show_job(job, output)
    raise typer.Exit(VERDICTS[job.status])


def _show_job(job: "JobObject", output: Format) -> None:
    if output is Format.table:
        _summary(job)
    else:
        print_record(job, output)


def _summary(job: "JobObject") -> None:
    rows: list[tuple[str, object]] = [("job", job.id), ("status", job.status), ("base", job.model)]
    rows += [("model", job.fine_tuned_model)] if job.fine_tuned_model else []
    rows += [("trained tokens", job.trained_tokens)] if job.trained_tokens is not None else []
    rows += [("error", job.error.message)] if job.error is not None else []
    print_table(["field", "value"], rows)
    if job.fine_tuned_model:
        note(f"Call it: luthier chat {job.fine_tuned_model} --compare {job.model}")
    elif job.status == "failed":
        note(f"All of its events: luthier logs {job.id}")


def parse_settings(given: list[str], tuning: Optional[str]) -> tuple[dict[str, Any], Optional[str], dict[str, Any]]:
    """Settings of the method, the tuning and its settings; the service checks names and values."""
    of_method: dict[str, Any] = {}
    of_tuning: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"'{one}' is not NAME=VALUE, such as n_epochs=3.", param_hint="--set")
        owner, dot, below = name.partition(".")
        if not dot:
            of_method[name] = _value(text)
            continue
        tuning = tuning or owner
        if owner != tuning:
            remedy = f"'{name}' is a setting of '{owner}', but the tuning is '{tuning}'. Name settings of one tuning."
            raise typer.BadParameter(remedy, param_hint="--set")
        of_tuning[below] = _value(text)
    return of_method, tuning, of_tuning


def method_and_tuning(
    method: Optional[str],
    hyperparameters: dict[str, Any],
    tuning: Optional[str],
    of_tuning: dict[str, Any],
    served: dict[str, Any],
) -> dict[str, Any]:
    """Fields of the body, as they were given: the service may know more names than this package."""
    body: dict[str, Any] = {}
    if method is not None or hyperparameters:
        method = method or "supervised"
        body["method"] = {"type": method, method: {"hyperparameters": hyperparameters}}
    if tuning is not None:
        body["tuning"] = {"type": tuning, tuning: of_tuning, **served}
    return body


def served_form(serve_as: Optional[str], serve_rank: Optional[int], tuning: Optional[str]) -> dict[str, Any]:
    """Fields of the tuning that say in which form engines serve the model; without them as it is trained."""
    given = {"serve_as": serve_as, "serve_rank": serve_rank}
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen and tuning is None:
        remedy = "Name the tuning whose model is served in another form: --tuning lora, or one of its settings."
        raise typer.BadParameter(remedy, param_hint="--serve-as")
    return chosen


def _gates(given: list[str]) -> "tuple[Gate, ...]":
    if not given:
        return ()
    from luthier.cli.reports import parse_gate

    try:
        return tuple(parse_gate(text) for text in given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--gate") from None


def _value(text: str) -> Any:
    """A number, true, false or a list as JSON has them; else the text, such as `auto`. Raises BadParameter."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no number that can be sent.", param_hint="--set") from None
    return value


def _asked_base(luthier: "Luthier") -> str:
    names = [model.id for model in luthier.models.list()]
    note(f"Models that can be tuned or continued: {', '.join(names) or 'none'}")
    return asked("Base", "--base", default=names[0] if names else None)


def _checked(luthier: "Luthier", plan: Plan, uploads: Uploads, reports: Reports) -> None:
    """Makes a check of the same job and shows what it finds. Exits where no job could start."""
    from luthier.cli import findings
    from luthier.requests import OMIT

    screen = messages()
    with screen.status("Every row is checked") if screen.is_terminal else nullcontext():
        made = luthier.fine_tuning.checks.create(
            model=plan.base,
            training_file=uploads.files["training_file"],
            validation_file=uploads.files.get("validation_file", OMIT),
            extra_body=plan.body(),
        )
        uploads.check = made.id
        found = findings.done(luthier, made)
    if found.result is not None:
        findings.show(found.result, err=True)
        if found.result.valid:
            return
    reports.of_check(plan, found)
    if found.result is None:
        reason = found.error.message if found.error is not None else found.status
        note(f"luthier: the check could not be done: {reason}")
        raise typer.Exit(EXIT_ERROR)
    note("luthier: a file is invalid. Correct the lines above, then try again.")
    raise typer.Exit(EXIT_FAILED)


def _rows(file: Path) -> int:
    """Lines that are not blank."""
    with file.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _show(plan: Plan) -> None:
    """What is about to happen, on stderr."""
    note(f"  base        {plan.base}")
    note(f"  training    {_about(plan.file)}")
    if plan.validation is not None:
        note(f"  validation  {_about(plan.validation)}")
    note(f"  method      {_said(plan.method, plan.hyperparameters)}")
    note(f"  tuning      {_said(plan.tuning, plan.tuning_settings | plan.served)}")


def _about(file: Path) -> str:
    return f"{file} ({_rows(file)} rows, {size(file.stat().st_size)})"


def _said(name: Optional[str], settings: dict[str, Any]) -> str:
    parts = [name or "the service's default", *(f"{key}={value}" for key, value in settings.items())]
    return ", ".join(parts)


def _create(luthier: "Luthier", plan: Plan, uploads: Uploads) -> "JobObject":
    """A job that names its check is not validated again."""
    from luthier.requests import OMIT

    return luthier.fine_tuning.jobs.create(
        model=plan.base,
        training_file=uploads.files["training_file"],
        validation_file=uploads.files.get("validation_file", OMIT),
        check=OMIT if uploads.check is None else uploads.check,
        suffix=OMIT if plan.suffix is None else plan.suffix,
        seed=OMIT if plan.seed is None else plan.seed,
        extra_body=plan.body(),
    )
