"""A tuning as CI systems read it: gates, JUnit's XML, SARIF 2.1.0 (OASIS) with invalid rows at their lines, Markdown.

Made from the job and its events when it has ended, whatever its end; or from a check that found no job could start.
"""

import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote
from xml.etree import ElementTree

import luthier
from luthier.cli.curve import LOSSES, Curve, curve_of, sparkline
from luthier.generated.models import CheckObject, EventObject, JobObject

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
GATE = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Gate:
    """What the last value of a metric must be."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"

    def failure(self, curve: Curve) -> Optional[str]:
        """Why the gate is not met; None if it is. A metric that the job does not have meets no gate."""
        value = curve.last(self.metric)
        if value is None:
            return f"{self}: the job has no metric '{self.metric}'; it has: {', '.join(curve.points) or 'none'}"
        return None if COMPARISONS[self.sign](value, self.bound) else f"{self}: {self.metric} is {value:g}"


def parse_gate(text: str) -> Gate:
    """`full_valid_loss<0.5`. Raises ValueError."""
    found = GATE.fullmatch(text)
    if found is None:
        raise ValueError(f"'{text}' is not METRIC, one of < <= > >=, and a number, such as full_valid_loss<0.5")
    return Gate(found[1], found[2], float(found[3]))


@dataclass(frozen=True)
class Problem:
    """An invalid row. `line` counts from 1; `param` says of which file."""

    line: int
    field: str
    reason: str
    param: str = "training_file"

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


@dataclass(frozen=True)
class Outcome:
    """How the tuning ended. `id` is the job's, or where none could start the check's."""

    id: str
    status: str
    base: str
    is_job: bool = True
    model: Optional[str] = None
    trained_tokens: Optional[int] = None
    code: Optional[str] = None  # of its error
    message: Optional[str] = None
    param: Optional[str] = None

    def failure(self) -> Optional[str]:
        """Why it has not succeeded; None if it has."""
        return None if self.status == "succeeded" else self.message or f"The job was {self.status}."


@dataclass(frozen=True)
class Report:
    """One tuning that has ended. `files` are the paths by the parameter of the job that they were sent as."""

    outcome: Outcome
    events: Sequence[EventObject]  # oldest first
    problems: Sequence[Problem]
    files: dict[str, Path]
    gates: Sequence[Gate] = ()
    curve: Curve = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "curve", curve_of(self.events))

    @classmethod
    def of_job(
        cls, job: JobObject, events: Sequence[EventObject], files: dict[str, Path], gates: Sequence[Gate] = ()
    ) -> "Report":
        """The invalid rows are those that the event of the failure lists."""
        outcome = Outcome(job.id, job.status, job.model, True, job.fine_tuned_model, job.trained_tokens)
        if (error := job.error) is not None:
            outcome = replace(outcome, code=error.code, message=error.message, param=error.param)
        param = outcome.param or "training_file"
        found = [one for event in events for one in event.data.get("problems", ())]
        problems = [Problem(int(one["line"]), str(one["field"]), str(one["reason"]), param) for one in found]
        return cls(outcome, events, problems, files, gates)

    @classmethod
    def of_check(cls, check: CheckObject, files: dict[str, Path], gates: Sequence[Gate] = ()) -> "Report":
        """Of a check that has found a file invalid, or that could not be done."""
        outcome = Outcome(check.id, "failed", check.model, is_job=False)
        if check.error is not None:
            outcome = replace(outcome, code=check.error.code, message=check.error.message, param=check.error.param)
        problems = []
        result = check.result
        reports = {} if result is None else {"training_file": result.training_file}
        if result is not None and result.validation_file is not None:
            reports["validation_file"] = result.validation_file
        for param, report in reports.items():
            problems += [Problem(one.line, one.field, one.reason, param) for one in report.problems]
            if report.error is not None and outcome.message is None:
                message = f"No job was started; it would end with this error: {report.error.message}"
                outcome = replace(outcome, code=report.error.code, message=message, param=param)
        return cls(outcome, (), problems, files, gates)

    def file(self, param: Optional[str]) -> Path:
        """The file that was sent as this parameter; the training file for any other."""
        return self.files.get(param or "", self.files["training_file"])

    def missed(self) -> list[str]:
        """The gates that are not met; none is looked at if the job has not succeeded."""
        if self.outcome.status != "succeeded":
            return []
        return [failure for gate in self.gates if (failure := gate.failure(self.curve)) is not None]


def junit(report: Report) -> str:
    """A test case for the job, one for each gate, one for each invalid row."""
    outcome = report.outcome
    cases: list[tuple[str, Optional[str]]] = [("job", outcome.failure())]
    cases += [(f"{report.file(problem.param)}:{problem.line}", str(problem)) for problem in report.problems]
    if outcome.status == "succeeded":
        cases += [(f"gate {gate}", gate.failure(report.curve)) for gate in report.gates]
    failures = sum(failure is not None for _, failure in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"luthier tune {outcome.base}", **counts})
    for name, failure in cases:
        case = ElementTree.SubElement(suite, "testcase", {"name": _xml(name), "classname": outcome.id})
        if failure is not None:
            ElementTree.SubElement(case, "failure", {"message": _xml(failure)})
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def sarif(report: Report) -> str:
    """A result for each invalid row, at its line, and one for each gate that is not met."""
    outcome = report.outcome
    rule = outcome.code or "invalid_row"
    results = [_result(rule, str(problem), report.file(problem.param), problem.line) for problem in report.problems]
    if not results and (failure := outcome.failure()) is not None:
        results.append(_result(rule, failure, report.file(outcome.param), 1))
    results += [_result("gate", missed, report.files["training_file"], 1) for missed in report.missed()]
    rules = [{"id": id} for id in dict.fromkeys(result["ruleId"] for result in results)]
    driver = {"name": "luthier", "version": luthier.__version__, "rules": rules}
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def metrics(report: Report) -> str:
    """JSON: the job (null where none could start), its verdict, the last value of each metric, each by its steps."""
    outcome, curve = report.outcome, report.curve
    values = {
        "job": outcome.id if outcome.is_job else None,
        "status": outcome.status,
        "base": outcome.base,
        "model": outcome.model,
        "trained_tokens": outcome.trained_tokens,
        "gates": {str(gate): gate.failure(curve) is None for gate in report.gates},
        "last": {name: curve.last(name) for name in curve.points},
        "steps": {name: sorted(points.items()) for name, points in curve.points.items()},
    }
    return json.dumps(values, indent=2) + "\n"


def summary(report: Report) -> str:
    """Markdown: the verdict, the curve, the last values, the gates, the first invalid rows."""
    return "\n".join([*_summary(report), ""])


def _summary(report: Report) -> Iterator[str]:
    outcome, curve = report.outcome, report.curve
    yield f"## Tuning of `{outcome.base}`: {'a gate was not met' if report.missed() else outcome.status}"
    yield ""
    if outcome.model is not None:
        yield f"Model: `{outcome.model}`"
        yield ""
    if (failure := outcome.failure()) is not None:
        yield _cell(failure)
        yield ""
    named = [name for name in LOSSES if curve.values(name)]
    if named:
        yield "| metric | last | curve |"
        yield "|---|---|---|"
        for name in named:
            yield f"| {name} | {curve.last(name):.4f} | `{sparkline(curve.values(name))}` |"
        yield ""
    for gate in report.gates if outcome.status == "succeeded" else ():
        missed = gate.failure(curve)
        yield f"- {'met' if missed is None else 'not met'}: `{gate}`" + ("" if missed is None else f" ({missed})")
    problems = report.problems
    if problems:
        yield "| line | what is wrong |"
        yield "|---|---|"
        for problem in problems[:20]:
            yield f"| {problem.line} | {_cell(str(problem))} |"
        if len(problems) > 20:
            yield f"| ... | {len(problems) - 20} more |"


def _result(rule: str, message: str, file: Path, line: int) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": line}}
    return {
        "ruleId": rule,
        "level": "error",
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
    }


def _uri(file: Path) -> str:
    """Relative to where the command was started, as annotations of a repository want it; else absolute."""
    whole, here = file.resolve(), Path.cwd()
    if here in whole.parents:
        return quote(whole.relative_to(here).as_posix())
    return whole.as_uri()


def _xml(text: str) -> str:
    """Text without characters that XML 1.0 cannot hold."""
    return NOT_XML.sub("\ufffd", text)


def _cell(text: str) -> str:
    """Text in a table of Markdown: a row's words are shown and never rendered."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", plain)
