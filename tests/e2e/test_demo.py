"""The demo as a newcomer runs it: exit code, printed accuracies, nothing left running."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.demo.known_base import BaseMissing, catalogue_with, fetch
from tests.given.forked_process import forking_environment
from tests.given.running_service import alive, descendants, wait_for
from tests.servers import missing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "examples/demo/demo.py", "--base", "luthier-tiny"]
REAL = [sys.executable, "examples/demo/demo.py"]
LIMIT_SECONDS = 300  # it takes a third of that on an idle machine; tests may share theirs


def accuracy(printed: str, model: str) -> int:
    """Percent of exact matches, as the demo prints them."""
    found = re.search(rf"{model} +\d+ right, +(\d+)%", printed)
    assert found is not None, printed
    return int(found[1])


def test_the_demo_shows_a_tuned_model_that_knows_more_than_its_base():
    command = [*DEMO, "--rows", "240"]  # half of them, and held to what all are held to
    demo = subprocess.run(
        command, cwd=ROOT, env=forking_environment(), capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert accuracy(demo.stdout, "base") <= 20
    assert accuracy(demo.stdout, "tuned") >= 80
    assert re.search(r"The model has forgotten .*per token \(its loss went from", " ".join(demo.stdout.split()))
    for phase in ("start", "upload + validation", "training", "first tuned answer", "evaluation"):
        assert re.search(rf"{re.escape(phase)} +│ +\d+\.\d", demo.stdout), phase


def test_the_demo_of_the_real_base_tunes_serves_and_measures_it():
    """Two steps and one question: the whole way of `make demo`, and a lesson that is too short, which it says."""
    try:
        catalogue_with("smollm2-135m") or fetch("smollm2-135m")
    except BaseMissing as reason:
        missing("SmolLM2-135M-Instruct", str(reason))
    demo = subprocess.run(
        [*REAL, "--rows", "10", "--questions", "1"],
        cwd=ROOT, env=forking_environment(), capture_output=True, text=True, timeout=3 * LIMIT_SECONDS,
    )  # fmt: skip
    assert "10 of them tune the base 'smollm2-135m'; 1 others test it" in demo.stdout, demo.stdout + demo.stderr
    assert "The job has successfully completed" in demo.stdout, demo.stdout + demo.stderr
    assert re.search(r"2/2 +steps  train_loss \d", demo.stdout), demo.stdout
    assert "The model has forgotten" in demo.stdout
    assert accuracy(demo.stdout, "base") == 0
    assert demo.returncode == 1 and "at least 85% was expected" in " ".join(demo.stdout.split())


def test_the_demos_orders_are_what_their_script_writes_and_share_nothing_with_those_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = ROOT / "examples" / "demo"
    monkeypatch.syspath_prepend(str(folder))
    make_orders, order_phrases = importlib.import_module("make_orders"), importlib.import_module("order_phrases")
    monkeypatch.setattr(make_orders, "FOLDER", tmp_path)
    make_orders.main()
    for name in ("training.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_bytes() == (folder / "orders" / name).read_bytes(), name
    for bank in (order_phrases.SENTENCES, order_phrases.THINGS, order_phrases.CITIES, order_phrases.NAMES):
        assert not set(bank.training) & set(bank.held_out)
    trained = (folder / "orders" / "training.jsonl").read_text(encoding="utf-8")
    for bank in (order_phrases.THINGS, order_phrases.CITIES, order_phrases.NAMES):
        assert not [phrase for phrase in bank.held_out if re.search(rf"\b{phrase}", trained)]


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(DEMO, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Luthier answers at" in line:  # a trainer ends with its worker, whoever killed that
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
