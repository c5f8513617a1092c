"""The benchmarks of training run at their smallest size: they measure every contender on the same work, and draw.

What they start are processes of their own, whose imports are most of what they cost here: of those that need no other
environment the first test starts one as a benchmark does, the others fork theirs.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from benchmarks import on_gpu, train_many, train_one
from tests.given.forked_process import output_of
from tests.given.running_service import RunningService
from tests.servers import missing
from tests.servers.trl import PYTHON, REMEDY

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of two steps, and of three where steps are what is measured."""
    monkeypatch.setattr(train_many, "ROWS", 2 * train_many.BATCH)
    monkeypatch.setattr(on_gpu, "STEPS", 3)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contenders' processes are forks of one that has imported."""

    def run_process(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> None:
        assert command[0] == sys.executable
        output_of(command[1:], environment, seconds)

    for module in (train_many, on_gpu):
        monkeypatch.setattr(module, "run_process", run_process)


def test_one_job_is_measured_against_trl(tmp_path: Path) -> None:
    if not PYTHON.exists():
        missing("TRL", REMEDY)
    lines = train_one.measure(0.0, 1, ["tiny"], ["demo"], ["float32"], 3, tmp_path)
    losses = {line[:16].strip(): [float(one) for one in line.split("  ")[-1].split(" -> ")] for line in lines[4:7]}
    assert list(losses) == list(train_one.CONTENDERS)
    assert all(0 < loss < 15 for of_one in losses.values() for loss in of_one), "of three steps, each of other rows"
    assert (tmp_path / "train_one.svg").read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.usefixtures("forked")
def test_the_script_for_a_gpu_runs_without_one(measured_service: RunningService, tmp_path: Path) -> None:
    lines = on_gpu.measure(
        ["tiny"], 1, 1, 0.0, "cpu", tmp_path, serve=lambda *_: nullcontext(measured_service), epochs=1
    )
    assert [line[:20].strip() for line in lines if "(" in line] == [
        "luthier", "a loop", "luthier", "a process per job", "one warm process", "luthier", "luthier", "by hand, warm"
    ]  # fmt: skip
    assert (tmp_path / "on_gpu.svg").exists()


@pytest.mark.usefixtures("forked")
def test_many_jobs_are_measured_against_processes(measured_service: RunningService, tmp_path: Path) -> None:
    """One job is enough to run every line of it, on a service that others measure too."""
    lines = train_many.measure(0.0, 1, 1, ["tiny"], 1, tmp_path, serve=lambda *_: nullcontext(measured_service))
    assert [line[:20].strip() for line in lines[4:7]] == ["luthier", "a process per job", "one warm process"]
    assert (tmp_path / "train_many.svg").exists()
