"""The demo's counter-proof: with shuffled answers there is nothing to learn, so the tuned model must not seem to know.

Were held-out answers to leak into training or into the prompts, this model would be right as well.
"""

import random
from pathlib import Path

import pytest

from examples.demo.questions import Question, ask_all, count_right, read_questions, write_questions
from tests.given.journey import upload
from tests.given.running_service import RunningService, wait_for_status

pytestmark = pytest.mark.slow

ROWS = 240  # as many as tests/e2e/test_demo.py learns from
DEMO = Path(__file__).parents[2] / "examples" / "demo"


def test_with_shuffled_answers_the_tuned_model_knows_nothing(measured_service: RunningService, tmp_path: Path):
    training, held_out = read_questions(DEMO / "training.jsonl")[:ROWS], read_questions(DEMO / "heldout.jsonl")
    answers = [question.answer for question in training]
    random.Random(0).shuffle(answers)
    shuffled = [Question(question.text, answer) for question, answer in zip(training, answers, strict=True)]
    write_questions(tmp_path / "shuffled.jsonl", shuffled)

    client = measured_service.client()
    job = client.fine_tuning.jobs.create(
        model="measured",
        training_file=upload(client, (tmp_path / "shuffled.jsonl").read_bytes()),
        seed=1,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 8}}},
    )
    tuned = wait_for_status(client, job.id, "succeeded", seconds=240, pause=0.5).fine_tuned_model
    assert tuned is not None
    given = ask_all(client, tuned, held_out, max_tokens=16)

    assert set(given) & set(answers), "it was tuned: it gives answers of the right kind"
    assert count_right(held_out, given) / len(held_out) < 0.3
