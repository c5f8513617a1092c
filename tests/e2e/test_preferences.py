"""A dpo job through the official SDK: from preference rows to a model that answers, all processes real."""

import csv
import io
import json
import math

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.given.journey import artifact_folder, messages, pairs, rows, upload
from tests.given.running_service import RunningService, wait_for_status

pytestmark = pytest.mark.slow


@pytest.fixture
def service(shared_service: RunningService) -> RunningService:
    return shared_service


def create_dpo_job(client: OpenAI, training: str, validation: str | None = None) -> FineTuningJob:
    return client.fine_tuning.jobs.create(
        model="luthier-tiny",
        training_file=training,
        validation_file=validation,
        seed=7,
        method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 6, "batch_size": 4, "beta": "auto"}}},
        extra_body={"tuning": {"type": "lora", "lora": {"r": 4}}},
    )


def test_a_dpo_job_starts_at_log_2_learns_the_preference_and_its_model_answers(service: RunningService) -> None:
    client = service.client()
    job = create_dpo_job(client, upload(client, pairs(12)), upload(client, pairs(4), "validation.jsonl"))
    job = wait_for_status(client, job.id, "succeeded")
    assert job.method is not None and job.method.dpo is not None and job.method.dpo.hyperparameters is not None
    assert job.method.dpo.hyperparameters.beta == 0.1
    assert job.method.supervised is None
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (6, 4)

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))[::-1]
    steps = [event.data for event in events if event.type == "metrics"]
    first, last = steps[0], steps[-1]
    assert (first["step"], last["step"], last["total_steps"]) == (1, 18, 18)  # type: ignore[index]
    assert first["train_loss"] == pytest.approx(math.log(2), abs=1e-4)  # type: ignore[index]
    assert last["train_loss"] < first["train_loss"]  # type: ignore[index]
    assert last["train_accuracy"] == 1.0 and last["full_valid_reward_margin"] > 0  # type: ignore[index]
    assert not any("token_accuracy" in name for step in steps for name in step)  # type: ignore[union-attr]

    text = client.files.content(job.result_files[0], extra_headers={"Accept": "text/csv"}).text
    table = list(csv.DictReader(io.StringIO(text)))
    assert float(table[0]["train_loss"]) == pytest.approx(math.log(2), abs=1e-4)
    assert float(table[-1]["train_reward_margin"]) > 0 and table[-1]["valid_accuracy"]

    assert job.fine_tuned_model is not None
    manifest = json.loads((artifact_folder(service, job.fine_tuned_model) / "manifest.json").read_text())
    assert (manifest["objective"], manifest["hyperparameters"]["beta"]) == ("dpo", 0.1)
    question = {"role": "user", "content": "1 blue?"}
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=[question], max_tokens=6)  # type: ignore[list-item]
    assert answer.model == job.fine_tuned_model
    assert answer.usage is not None and answer.usage.completion_tokens > 0


def test_a_dpo_job_on_chat_rows_fails_in_openais_words(service: RunningService) -> None:
    client = service.client()
    training = upload(client, rows(12))
    job = wait_for_status(client, create_dpo_job(client, training).id, "failed")
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert job.error.message == (
        "The job failed due to an invalid training file. Invalid file format. "
        f"Input file {training} is in the fine-tune-chat format, but the specified fine-tuning job is not using "
        "'supervised' as the training method (provided method=dpo)."
    )
    assert messages(client, job.id)[-1] == job.error.message
