"""A tuning as CI systems read it: gates, JUnit's XML, SARIF 2.1.0 (OASIS) with invalid rows at their lines, Markdown.

Made from the job and its events when it has ended, whatever its end.
"""

import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote
from xml.etree import ElementTree

import luthier
from luthier.cli.curve import LOSSES, Curve, curve_of, sparkline
from luthier.generated.models import EventObject, JobObject

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
    """An invalid row. `line` counts from 1."""

    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


@dataclass(frozen=True)
class Report:
    """One tuning that has ended. `files` are the paths by the parameter of the job that they were sent as."""

    job: JobObject
    events: Sequence[EventObject]  # oldest first
    files: dict[str, Path]
    gates: Sequence[Gate] = ()
    curve: Curve = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "curve", curve_of(self.events))

    def problems(self) -> list[Problem]:
        """The invalid rows, which the event of the failure lists."""
        found = [one for event in self.events for one in event.data.get("problems", ())]
        return [Problem(int(one["line"]), str(one["field"]), str(one["reason"])) for one in found]

    def file(self) -> Path:
        """The file that the job's error is about."""
        param = self.job.error.param if self.job.error is not None else None
        return self.files.get(param or "", self.files["training_file"])

    def missed(self) -> list[str]:
        """The gates that are not met; none is looked at if the job has not succeeded."""
        if self.job.status != "succeeded":
            return []
        return [failure for gate in self.gates if (failure := gate.failure(self.curve)) is not None]


def junit(report: Report) -> str:
    """A test case for the job, one for each gate, one for each invalid row."""
    cases: list[tuple[str, Optional[str]]] = [("job", _failure_of(report.job))]
    cases += [(f"{report.file()}:{problem.line}", str(problem)) for problem in report.problems()]
    if report.job.status == "succeeded":
        cases += [(f"gate {gate}", gate.failure(report.curve)) for gate in report.gates]
    failures = sum(failure is not None for _, failure in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"luthier tune {report.job.model}", **counts})
    for name, failure in cases:
        case = ElementTree.SubElement(suite, "testcase", {"name": _xml(name), "classname": report.job.id})
        if failure is not None:
            ElementTree.SubElement(case, "failure", {"message": _xml(failure)})
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def sarif(report: Report) -> str:
    """A result for each invalid row, at its line, and one for each gate that is not met."""
    rule = report.job.error.code if report.job.error is not None else "invalid_row"
    results = [_result(rule, str(problem), report.file(), problem.line) for problem in report.problems()]
    if not results and (failure := _failure_of(report.job)) is not None:
        results.append(_result(rule, failure, report.file(), 1))
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
    """JSON: the job, its verdict, the last value of each metric, and each metric by its steps."""
    job, curve = report.job, report.curve
    values = {
        "job": job.id,
        "status": job.status,
        "base": job.model,
        "model": job.fine_tuned_model,
        "trained_tokens": job.trained_tokens,
        "gates": {str(gate): gate.failure(curve) is None for gate in report.gates},
        "last": {name: curve.last(name) for name in curve.points},
        "steps": {name: sorted(points.items()) for name, points in curve.points.items()},
    }
    return json.dumps(values, indent=2) + "\n"


def summary(report: Report) -> str:
    """Markdown: the verdict, the curve, the last values, the gates, the first invalid rows."""
    return "\n".join([*_summary(report), ""])


def _summary(report: Report) -> Iterator[str]:
    job, curve = report.job, report.curve
    yield f"## Tuning of `{job.model}`: {'a gate was not met' if report.missed() else job.status}"
    yield ""
    if job.fine_tuned_model is not None:
        yield f"Model: `{job.fine_tuned_model}`"
        yield ""
    if (failure := _failure_of(job)) is not None:
        yield _cell(failure)
        yield ""
    named = [name for name in LOSSES if curve.values(name)]
    if named:
        yield "| metric | last | curve |"
        yield "|---|---|---|"
        for name in named:
            yield f"| {name} | {curve.last(name):.4f} | `{sparkline(curve.values(name))}` |"
        yield ""
    for gate in report.gates if job.status == "succeeded" else ():
        missed = gate.failure(curve)
        yield f"- {'met' if missed is None else 'not met'}: `{gate}`" + ("" if missed is None else f" ({missed})")
    problems = report.problems()
    if problems:
        yield "| line | what is wrong |"
        yield "|---|---|"
        for problem in problems[:20]:
            yield f"| {problem.line} | {_cell(str(problem))} |"
        if len(problems) > 20:
            yield f"| ... | {len(problems) - 20} more |"


def _failure_of(job: JobObject) -> Optional[str]:
    if job.status == "succeeded":
        return None
    return job.error.message if job.error is not None else f"The job was {job.status}."


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
