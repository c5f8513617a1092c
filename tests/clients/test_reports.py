"""`luthier tune` in CI: gates, JUnit, SARIF and the Markdown summary, of jobs that end in every way."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from luthier import AsyncLuthier
from luthier.cli import reports
from luthier.cli.reports import Gate, Problem, Report, parse_gate
from luthier.generated.models import EventObject, JobObject
from luthier.records import read

from service.domain import event as wording
from service.domain.check import Finding
from service.installation.context import Context
from tests.given.command import Called, called
from tests.given.files_by_http import ROWS
from tests.given.report_schemas import check_junit, check_sarif
from tests.given.stored_checks import do_check
from tests.given.stored_jobs import BASES, move, steps
from tests.given.work import claim_training

pytestmark = pytest.mark.slow

HOSTILE = "is <b>|bold|</b> `code` \x00 & [link](x)"


def a_report(status: str, *events: dict[str, Any], gates: tuple[Gate, ...] = (), error: Any = None) -> Report:
    job: dict[str, Any] = dict.fromkeys(["finished_at", "fine_tuned_model", "validation_file", "trained_tokens"])
    job |= {"id": "ftjob-1", "model": "tiny", "created_at": 1, "organization_id": "o", "result_files": [], "seed": 1}
    job |= {"status": status, "training_file": "file-1", "error": error, "integrations": [], "tuning": {}}
    job |= {"hyperparameters": {"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0}}
    job |= {"method": {"type": "other"}, "progress": {"percent": 1, "step": 1}}
    head = {"created_at": 1, "level": "info", "message": ""}
    found = [read(EventObject, {**head, "id": f"e{number}", **event}) for number, event in enumerate(events)]
    return Report.of_job(read(JobObject, job), found, {"training_file": Path("rows.jsonl")}, gates)


def metrics(**values: float) -> dict[str, Any]:
    return {"type": "metrics", "data": {"total_steps": 2, **values}}


INVALID = {
    "type": "message",
    "data": {"problems": [{"line": 7, "field": "messages[0]", "reason": HOSTILE}], "total": 1},
}
FAILURE = {"code": "invalid_training_file", "message": "The file is invalid.", "param": "training_file"}


def test_a_gate_is_a_metric_a_sign_and_a_number() -> None:
    assert parse_gate("full_valid_loss<0.5") == Gate("full_valid_loss", "<", 0.5)
    assert parse_gate(" a >= -1e-3 ") == Gate("a", ">=", -0.001)
    for wrong in ("", "a", "a<", "a<b", "a=1", "<1", "a<1<2"):
        with pytest.raises(ValueError, match=r"full_valid_loss<0\.5"):
            parse_gate(wrong)


@pytest.mark.parametrize(
    ("text", "met"), [("a<2", True), ("a<1", False), ("a<=1", True), ("a>1", False), ("a>=1", True), ("b<9", False)]
)
def test_the_last_value_meets_a_gate_and_a_missing_one_does_not(text: str, met: bool) -> None:
    report = a_report("succeeded", metrics(step=1, a=5), metrics(step=2, a=1), gates=(parse_gate(text),))
    assert (report.missed() == []) is met
    assert a_report("failed", error=FAILURE, gates=(parse_gate(text),)).missed() == []


def test_junit_has_a_case_for_the_job_each_gate_and_each_row() -> None:
    good = a_report("succeeded", metrics(step=1, a=1), gates=(parse_gate("a<2"), parse_gate("a<1")))
    root = ElementTree.fromstring(reports.junit(good))
    cases = {case.attrib["name"]: case.find("failure") is not None for case in root.iter("testcase")}
    assert cases == {"job": False, "gate a<2": False, "gate a<1": True}
    assert [(one.attrib["tests"], one.attrib["failures"]) for one in (root, root[0])] == [("3", "1")] * 2
    root = ElementTree.fromstring(reports.junit(a_report("failed", INVALID, error=FAILURE)))
    found = {case.attrib["name"]: case[0].attrib["message"] for case in root.iter("testcase")}
    assert found["job"] == "The file is invalid."
    assert found["rows.jsonl:7"] == f"messages[0]: {HOSTILE}".replace("\x00", "\ufffd")


def test_sarif_has_a_result_at_each_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    log = json.loads(reports.sarif(a_report("failed", INVALID, error=FAILURE)))
    (run,) = log["runs"]
    assert (log["version"], run["tool"]["driver"]["rules"]) == ("2.1.0", [{"id": "invalid_training_file"}])
    (result,) = run["results"]
    place = {"artifactLocation": {"uri": "rows.jsonl"}, "region": {"startLine": 7}}
    assert result["locations"] == [{"physicalLocation": place}] and HOSTILE in result["message"]["text"]
    gated = json.loads(reports.sarif(a_report("succeeded", gates=(parse_gate("a<1"),))))
    assert [one["ruleId"] for one in gated["runs"][0]["results"]] == ["gate"]
    cancelled = json.loads(reports.sarif(a_report("cancelled")))
    assert [one["message"]["text"] for one in cancelled["runs"][0]["results"]] == ["The job was cancelled."]
    assert json.loads(reports.sarif(a_report("succeeded")))["runs"][0]["results"] == []


EVERY_END = [
    a_report("succeeded", metrics(step=1, a=1), gates=(parse_gate("a<2"), parse_gate("a<1"))),
    a_report("succeeded"),
    a_report("failed", INVALID, error=FAILURE),
    a_report("failed", error=FAILURE),
    a_report("cancelled"),
]


@pytest.mark.parametrize("report", EVERY_END)
@pytest.mark.parametrize("name", ["rows.jsonl", "with space/räte & 50%.jsonl", "/elsewhere/rows.jsonl"])
def test_reports_are_what_their_formats_say(report: Report, name: str) -> None:
    named = replace(report, files={"training_file": Path(name)})
    check_sarif(reports.sarif(named))
    check_junit(reports.junit(named))


def test_the_summary_shows_rows_and_never_renders_them() -> None:
    text = reports.summary(a_report("failed", INVALID, error=FAILURE))
    (row,) = [line for line in text.splitlines() if line.startswith("| 7 |")]
    assert "<b>" not in row and row.count("|") - row.count("\\|") == 3 and "\\`code\\`" in row
    text = reports.summary(a_report("succeeded", metrics(step=1, train_loss=2), metrics(step=2, train_loss=1)))
    assert "| train_loss | 1.0000 | `█▁` |" in text
    many = {"type": "message", "data": {"problems": INVALID["data"]["problems"] * 25}}
    assert "| ... | 5 more |" in reports.summary(a_report("failed", many, error=FAILURE))


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


async def started(ctx: Context, sdk: AsyncLuthier, *arguments: str) -> "tuple[asyncio.Task[Called], str]":
    """The command, and the job that it has created, which was checked before."""
    tuning = asyncio.create_task(called("tune", "rows.jsonl", "--base", "luthier-tiny", "-y", *arguments))
    await do_check(ctx)
    async with asyncio.timeout(20):
        while not (jobs := (await sdk.fine_tuning.jobs.list()).data):
            assert not tuning.done(), tuning.result()
            await asyncio.sleep(0.02)
    return tuning, jobs[0].id


@pytest.mark.usefixtures("configured")
async def test_the_services_invalid_rows_become_annotations(ctx: Context, sdk: AsyncLuthier, rows: Path) -> None:
    reports = ("--sarif", "out.sarif", "--junit", "out.xml", "--summary", "out.md", "--metrics", "out.json")
    tuning = asyncio.create_task(called("tune", "rows.jsonl", "--base", "luthier-tiny", "-y", *reports))
    found = [Finding(2, "messages", "has no messages", "Add some."), Finding(9, "", "is not JSON", "Quote it.")]
    check = await do_check(ctx, *found)
    async with asyncio.timeout(20):
        done = await tuning
    assert (done.code, done.stdout) == (1, "") and "Nothing was started" in done.stderr
    assert "has no messages" in done.stderr and (await sdk.fine_tuning.jobs.list()).data == []
    assert json.loads((rows.parent / "out.json").read_text())["job"] is None
    assert check in (rows.parent / "out.xml").read_text()
    results = json.loads((rows.parent / "out.sarif").read_text())["runs"][0]["results"]
    lines = [one["locations"][0]["physicalLocation"]["region"]["startLine"] for one in results]
    assert lines == [2, 9] and results[0]["message"]["text"] == str(Problem(2, "messages", "has no messages"))
    assert "It is invalid" in (rows.parent / "out.md").read_text()
    assert ElementTree.parse(rows.parent / "out.xml").getroot().attrib["failures"] == "3"


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(("gate", "code"), [("train_loss<2", 0), ("train_loss<1", 3), ("full_valid_loss<9", 3)])
async def test_a_gate_decides_the_exit_code(ctx: Context, sdk: AsyncLuthier, rows: Path, gate: str, code: int) -> None:
    tuning, id = await started(ctx, sdk, "--gate", gate)
    held = await claim_training(ctx, "one", BASES)
    assert held is not None
    await held.record_steps(steps(1, 2), 1.0)
    await held.warn(wording.succeeded())
    await move(ctx, id, "running", status="succeeded", finished_at=2)
    async with asyncio.timeout(20):
        done = await tuning
    assert (done.code, "gate is not met" in done.stderr) == (code, code == 3)


async def test_wrong_gates_and_unfollowed_jobs_are_refused_before_anything_is_sent(rows: Path) -> None:
    for arguments in (["--gate", "loss"], ["--gate", "a<1", "-d"], ["-d", "--junit", "x"]):
        assert (await called("tune", "rows.jsonl", "--base", "x", "-y", *arguments)).code == 2
