"""The guides' worked examples as users run them; that of classifiers is in `test_classifiers`."""

import re
import subprocess
import sys

import pytest

from tests.given.forked_process import forking_environment
from tests.given.running_service import ROOT, RunningService

pytestmark = pytest.mark.slow
LIMIT_SECONDS = 300


def run(*command: str, **environment: str) -> str:
    """What the example prints, spaces put together; its exit code is 0."""
    example = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT, env=forking_environment() | environment, capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )  # fmt: skip
    assert example.returncode == 0, example.stdout + example.stderr
    return " ".join(example.stdout.split())


def test_four_virtual_tokens_make_a_bloom_speak_as_fifty_prompts_do() -> None:
    printed = run("examples/bloom_prompt_tuning.py")
    assert "125 steps, with a learning rate of at most 0.005 " in printed
    assert "base asks to act as somebody for 0 of " in printed
    found = re.search(r"mean loss of each epoch: ([\d. ]+) base", printed)
    assert found is not None, printed
    losses = [float(loss) for loss in found[1].split()]
    assert len(losses) == 5 and losses[-1] < 0.8 * losses[0]


def test_lora_and_full_stand_side_by_side_with_what_each_forgets(shared_service: RunningService) -> None:
    told = {"OPENAI_BASE_URL": f"{shared_service.url}/v1", "OPENAI_API_KEY": shared_service.key}
    short = ("--rows", "16", "--epochs", "4", "--batch-size", "4", "--questions", "2")
    printed = run("examples/lora_beside_full.py", *short, **told)
    client = shared_service.client()
    jobs = {job.tuning["type"]: job for job in client.fine_tuning.jobs.list(limit=2).data}  # type: ignore[attr-defined]
    assert set(jobs) == {"lora", "full"}
    base = re.search(r"base │ │ \d │ ([\d.]+) │", printed)
    assert base is not None, printed
    for name, job in jobs.items():
        (report,) = (
            event.data
            for event in client.fine_tuning.jobs.list_events(job.id, limit=100)
            if isinstance(event.data, dict) and "likelihood_change" in event.data
        )
        row = re.search(rf"{name} │ ([\d.e-]+) │ \d │ ([\d.]+) │ ([+-][\d.]+%)", printed)
        assert row is not None, printed
        assert base[1] == f"{report['loss_before']:.3f}"
        assert row.groups()[1:] == (f"{report['loss_after']:.3f}", f"{report['likelihood_change']:+.1%}")
