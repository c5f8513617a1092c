"""openai-python's own tests against the real service: API and engine as processes, SQLite, local storage, loopback.

Each of them is there twice for the same request: with a client that validates what it gets and with one that does not.
What the first accepts the second accepts too, so only the first is run, with each of the SDK's ways over the network.
"""

import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conformance import suite
from tests.conformance.processes import served

FOLDER = Path(__file__).parent
LEFT = FOLDER / "left_for_later.toml"
FILES = [
    "test_files.py",
    "test_uploads.py",
    "uploads/test_parts.py",
    "test_models.py",
    "fine_tuning/test_jobs.py",
    "fine_tuning/jobs/test_checkpoints.py",
    "fine_tuning/checkpoints/test_permissions.py",
    "test_completions.py",
    "chat/test_completions.py",
    "../lib/test_fine_tuning_positional_arguments.py",  # beside the resources: what the SDK itself adds to them
]

Outcomes = dict[str, Counter[str]]  # "chat/test_completions.py::test_method_create" -> how its variants ended


@pytest.mark.slow
def test_openai_pythons_own_tests_pass(tmp_path: Path) -> None:
    outcomes, output = run_suite(tmp_path, FILES)
    left = {name for entry in tomllib.loads(LEFT.read_text(encoding="utf-8"))["left"] for name in entry["tests"]}
    total = sum(outcomes.values(), Counter[str]())
    counts = f"{total['passed']} passed, {total['skipped']} skipped by itself, {total['failed']} failed"
    sys.stdout.write(f"\nopenai-python {suite.VERSION}: {counts}; {len(left)} tests are left for later\n")

    failed = {name for name, ends in outcomes.items() if ends["failed"]}
    stale = {name for name in left if name not in outcomes or outcomes[name]["passed"]}
    if failed - left:
        sys.stdout.write(output)
    assert failed - left == set(), "these tests fail and are not listed as left for later"
    assert stale == set(), "these tests are listed as left for later, but pass or do not exist"
    assert {name.partition("::")[0] for name in outcomes} == {file.removeprefix("../") for file in FILES}
    assert total["passed"] > 300


def run_suite(folder: Path, files: list[str]) -> tuple[Outcomes, str]:
    """Starts everything, runs the files of the suite, and returns how each test ended and what pytest wrote."""
    source = suite.fetch()
    report = folder / "report.xml"
    with served(folder, "engine") as url:
        command = [
            str(suite.PYTHON), "-m", "pytest", "-q", "-o", "addopts=--tb=short", "--show-capture=no",
            "-p", "reset_plugin", "-k", "not loose", f"--junit-xml={report}",
            *(f"tests/api_resources/{file}" for file in files),
        ]  # fmt: skip
        environment = {**os.environ, "TEST_API_BASE_URL": f"{url}/v1", "PYTHONPATH": str(FOLDER)}
        done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return _outcomes(report), done.stdout


def _outcomes(report: Path) -> Outcomes:
    found: Outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        module, _, _ = case.attrib["classname"].removeprefix("tests.").removeprefix("api_resources.").rpartition(".")
        test = case.attrib["name"].partition("[")[0]
        name = f"{module.replace('.', '/')}.py::{test}"
        ends = {child.tag for child in case}
        end = "failed" if ends & {"failure", "error"} else "skipped" if "skipped" in ends else "passed"
        found.setdefault(name, Counter())[end] += 1
    return found
