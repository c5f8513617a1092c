"""Classifiers as users make them: the blocks of docs/methods.md as they are pasted, and the guides' example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.given.forked_process import forking_environment
from tests.given.running_service import ROOT, RunningService

pytestmark = pytest.mark.slow
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT_SECONDS = 300
SECTION = "## A classifier, from rows to labels"


def test_the_pages_blocks_train_a_classifier_and_call_it(shared_service: RunningService, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    blocks = dict(reversed(FENCE.findall(page[page.index(SECTION) :].partition("\n## ")[0])))
    told = {"OPENAI_BASE_URL": f"{shared_service.url}/v1", "OPENAI_API_KEY": shared_service.key}
    for command in (["bash", "-euo", "pipefail", "-c", blocks["bash"]], [sys.executable, "-c", blocks["python"]]):
        ended = subprocess.run(
            command, cwd=tmp_path, env=os.environ | told, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "delivery" in ended.stdout


def test_lora_on_the_attention_of_distilbert_learns_two_classes() -> None:
    command = [sys.executable, "examples/distilbert_two_classes.py"]
    one_thread = {"OMP_NUM_THREADS": "1"}  # two of so small a model wait for each other, spinning
    example = subprocess.run(
        command, cwd=ROOT, env=forking_environment() | one_thread, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert example.returncode == 0, example.stdout + example.stderr
    assert "held-out reviews are right" in example.stdout
