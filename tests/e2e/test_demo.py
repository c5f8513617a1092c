"""The demo as a newcomer runs it: exit code, printed accuracies, nothing left running."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.given.running_service import alive, descendants, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "examples/demo/demo.py"]
LIMIT_SECONDS = 300  # it takes a third of that on an idle machine; tests may share theirs


def accuracy(printed: str, model: str) -> int:
    """Percent of exact matches, as the demo prints them."""
    found = re.search(rf"{model} +\d+ right, +(\d+)%", printed)
    assert found is not None, printed
    return int(found[1])


def test_the_demo_shows_a_tuned_model_that_knows_more_than_its_base():
    demo = subprocess.run(DEMO, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert accuracy(demo.stdout, "base") <= 20
    assert accuracy(demo.stdout, "tuned") >= 80
    for phase in ("start", "upload + validation", "training", "first tuned answer", "evaluation"):
        assert re.search(rf"{re.escape(phase)} +│ +\d+\.\d", demo.stdout), phase


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(DEMO, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Fine-tuning job started" in line:
                break
        started = descendants(demo.pid)
        assert len(started) >= 4, "up, API, worker, engine"
        demo.kill()
        demo.wait(10)
    wait_for(lambda: not any(alive(pid) for pid in started), 60, "the end of what the demo started")


def test_ctrl_c_in_the_middle_of_the_demo_leaves_nothing_behind(tmp_path: Path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(DEMO, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Fine-tuning job started" in line:
                break
        time.sleep(3)  # for the trainer to be there
        started = descendants(demo.pid)
        assert len(started) >= 4, "up, API, worker, engine"
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(LIMIT_SECONDS) == 130
    wait_for(lambda: not any(alive(pid) for pid in started), 30, "the end of what the demo started")
    assert list(tmp_path.glob("luthier-*")) == []
