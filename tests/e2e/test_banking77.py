"""Real input: the example that learns ten intents of BANKING77, as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.given.running_service import RunningService

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "banking77"
EXAMPLE = [sys.executable, "examples/banking77.py"]
LIMIT_SECONDS = 600  # it takes a fifth of that on two idle cores; tests may share theirs


@pytest.mark.skipif(not (DATA / "train.csv").is_file(), reason="BANKING77 is not in ../shared/data/banking77")
def test_a_tuned_model_knows_ten_intents_of_banking77(measured_service: RunningService):
    told = {"OPENAI_BASE_URL": f"{measured_service.url}/v1", "OPENAI_API_KEY": measured_service.key}
    example = subprocess.run(
        [*EXAMPLE, "--model", "measured", "--epochs", "1", "--questions", "100"],
        cwd=ROOT, env=os.environ | told, capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )  # fmt: skip
    assert example.returncode == 0, example.stdout + example.stderr
    assert percent(example.stdout, "base") <= 5
    assert percent(example.stdout, "tuned") >= 85


def test_a_folder_without_the_data_is_an_error(tmp_path: Path):
    example = subprocess.run([*EXAMPLE, "--data", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert example.returncode == 2
    assert "there is no train.csv" in example.stderr


def percent(printed: str, model: str) -> float:
    """Exact matches, as the example prints them."""
    found = re.search(rf"^{model} .*: ([\d.]+)% exact match", printed, re.MULTILINE)
    assert found is not None, printed
    return float(found[1])
