"""The whole path on embedded defaults, all processes real: file, job, trainer, artifact, engine, tuned answer."""

import csv
import io
import json
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from openai import NotFoundError
from openai.types.fine_tuning import FineTuningJob
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.recipes.base import Base
from tests.given import journey
from tests.given.journey import artifact_folder, messages, rows, upload, weights_hash
from tests.given.running_service import RunningService, wait_for, wait_for_status

pytestmark = pytest.mark.slow
create_job = partial(journey.create_job, model="luthier-tiny")


@pytest.fixture
def service(shared_service: RunningService) -> Iterator[RunningService]:
    """Whatever a test leaves running is cancelled: a test that fails must not fail those after it."""
    yield shared_service
    client = shared_service.client()
    for job in client.fine_tuning.jobs.list():
        if job.status not in ("succeeded", "failed", "cancelled"):
            client.fine_tuning.jobs.cancel(job.id)


@pytest.fixture
def base(shared_base: Base) -> Base:
    return shared_base


def test_a_job_goes_from_file_to_tuned_answer(service: RunningService) -> None:
    client = service.client()
    training, validation = upload(client, rows(24)), upload(client, rows(6, seed=1), "validation.jsonl")
    job = create_job(client, training, epochs=4, validation_file=validation, suffix="colours")
    assert job.status in ("validating_files", "queued")
    job = wait_for_status(client, job.id, "succeeded")

    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.startswith("ft:luthier-tiny:luthier:colours:")
    assert job.hyperparameters.n_epochs == 4
    assert job.trained_tokens and job.finished_at
    assert job.error is None
    assert job.progress["percent"] == 100  # type: ignore[attr-defined]

    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "1 red?"}], max_tokens=8, temperature=0
    )
    assert answer.model == job.fine_tuned_model
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    completion = client.completions.create(model=job.fine_tuned_model, prompt="1 red?", max_tokens=4)
    assert completion.usage is not None and completion.usage.completion_tokens <= 4
    assert job.fine_tuned_model in [model.id for model in client.models.list()]


def test_events_come_in_openais_order_and_wording(service: RunningService) -> None:
    client = service.client()
    training = upload(client, rows(12))
    job = create_job(client, training, epochs=2)
    job = wait_for_status(client, job.id, "succeeded")
    said = messages(client, job.id)
    checkpoint = next(line for line in said if line.startswith("Checkpoint"))
    ours = [line for line in said if line.startswith("New fine-tuned model's log-probabilities agree")]
    assert len(ours) == 1
    assert said == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {training}",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        checkpoint,
        *ours,
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]
    assert checkpoint.startswith("Checkpoint created at step 3 with Snapshot ID: ft:luthier-tiny:luthier::")
    assert checkpoint.endswith(":ckpt-step-3")


def test_checkpoints_and_the_result_file_tell_the_training(service: RunningService) -> None:
    client = service.client()
    training, validation = upload(client, rows(12)), upload(client, rows(5, seed=2))
    job = create_job(client, training, epochs=5, validation_file=validation)
    job = wait_for_status(client, job.id, "succeeded")
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [15, 12, 9]
    assert checkpoints[0].fine_tuned_model_checkpoint == job.fine_tuned_model
    assert all(checkpoint.metrics.full_valid_loss is not None for checkpoint in checkpoints)
    told = [event.data for event in client.fine_tuning.jobs.list_events(job.id) if event.type == "metrics"]
    assert all({"learning_rate", "grad_norm", "tokens_per_second", "trained_tokens"} <= set(data) for data in told)  # type: ignore[call-overload]
    for checkpoint in checkpoints:
        client.completions.create(model=checkpoint.fine_tuned_model_checkpoint, prompt="x", max_tokens=2)

    text = client.files.content(job.result_files[0], extra_headers={"Accept": "text/csv"}).text
    table = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["step"]) for row in table] == list(range(1, 16))
    assert any(row["valid_loss"] for row in table)
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])


@pytest.mark.parametrize("tuning", ["lora", "prompt"])
def test_the_downloaded_artifact_is_pefts_and_gives_the_served_answers(
    service: RunningService, base: Base, tuning: str
) -> None:
    client = service.client()
    job = create_job(client, upload(client, rows(24)), epochs=6, tuning=tuning)
    job = wait_for_status(client, job.id, "succeeded")
    assert job.fine_tuned_model is not None
    folder = artifact_folder(service, job.fine_tuned_model)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["base"], manifest["tuning"], manifest["seed"]) == (base.id, tuning, 7)

    tokenizer = AutoTokenizer.from_pretrained(base.source)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.source), folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "3 green?"}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    with torch.no_grad():
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    new = output[0] if tuning == "prompt" and output.shape[1] <= 6 else output[0, ids.shape[1] :]
    expected = tokenizer.decode(new, skip_special_tokens=True)
    answer = client.chat.completions.create(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": "3 green?"}],
        max_tokens=6,
        temperature=0,
    )
    assert answer.choices[0].message.content == expected


def test_the_seed_reproduces_the_adapter_bit_for_bit(service: RunningService) -> None:
    client = service.client()
    training = upload(client, rows(16))
    jobs = [create_job(client, training) for _ in range(2)]  # beside each other, in two slots
    models = [wait_for_status(client, job.id, "succeeded").fine_tuned_model for job in jobs]
    assert weights_hash(service, models[0]) == weights_hash(service, models[1])


def test_two_projects_train_at_once_and_see_nothing_of_each_other(service: RunningService) -> None:
    ours = service.client()
    theirs = service.client(service.run("keys", "create", "--project", "theirs").strip())
    jobs = [(client, create_job(client, upload(client, rows(16)))) for client in (ours, theirs)]
    done = [(client, wait_for_status(client, job.id, "succeeded")) for client, job in jobs]
    (_, mine), (_, other) = done
    assert other.fine_tuned_model is not None
    for call in (
        lambda: ours.fine_tuning.jobs.retrieve(other.id),
        lambda: ours.files.retrieve(other.training_file),
        lambda: ours.models.retrieve(other.fine_tuned_model),  # type: ignore[arg-type]
        lambda: ours.completions.create(model=other.fine_tuned_model, prompt="x", max_tokens=1),  # type: ignore[arg-type]
    ):
        with pytest.raises(NotFoundError):
            call()
    assert mine.id in [job.id for job in ours.fine_tuning.jobs.list()]
    assert other.id not in [job.id for job in ours.fine_tuning.jobs.list()]


def test_a_queued_and_a_running_job_can_be_cancelled(service: RunningService) -> None:
    client = service.client()
    training = upload(client, rows(200))
    crowd = [create_job(client, training, epochs=50, batch=1) for _ in range(5)]  # four slots
    reached: list[FineTuningJob] = []

    def seated() -> bool:  # any four: the first one checks the file, and the others may be ready before it
        reached[:] = [client.fine_tuning.jobs.retrieve(job.id) for job in crowd]
        return sorted(job.status for job in reached) == ["queued", *["running"] * 4]

    wait_for(seated, 120, "four running jobs and a queued one")
    reached.sort(key=lambda job: job.status)
    assert reached[0].progress["queue_position"] == 0  # type: ignore[attr-defined]
    for job in reached:
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    time.sleep(1)
    for job in crowd:
        job = client.fine_tuning.jobs.retrieve(job.id)
        assert (job.status, job.fine_tuned_model) == ("cancelled", None)
    again = create_job(client, upload(client, rows(12)))  # every slot is free again
    wait_for_status(client, again.id, "succeeded")


def test_a_bad_file_fails_in_seconds_though_every_slot_is_busy(service: RunningService) -> None:
    client = service.client()
    crowd = [create_job(client, upload(client, rows(200)), epochs=50, batch=1) for _ in range(4)]
    for job in crowd:
        wait_for_status(client, job.id, "running", pause=0.05)
    bad = rows(10) + b'\n{"messages": [{"role": "robot", "content": "x"}]}\nnot json\n'
    job = wait_for_status(client, create_job(client, upload(client, bad)).id, "failed", seconds=20)
    assert job.error is not None
    assert job.error.code == "invalid_training_file"
    assert job.error.param == "training_file"
    assert "Example 11" in job.error.message and "Example 12" in job.error.message
    event = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    assert event.level == "error"
    assert [problem["line"] for problem in event.data["problems"]] == [11, 12]  # type: ignore[index]
    for busy in crowd:
        client.fine_tuning.jobs.cancel(busy.id)


def test_a_deleted_model_is_gone_for_good(service: RunningService) -> None:
    client = service.client()
    job = wait_for_status(client, create_job(client, upload(client, rows(12))).id, "succeeded")
    assert job.fine_tuned_model is not None
    client.completions.create(model=job.fine_tuned_model, prompt="x", max_tokens=1)
    assert client.models.delete(job.fine_tuned_model).deleted
    with pytest.raises(NotFoundError):
        client.completions.create(model=job.fine_tuned_model, prompt="x", max_tokens=1)
    with pytest.raises(NotFoundError):
        client.models.retrieve(job.fine_tuned_model)


def test_a_tuned_model_stops_by_itself(service: RunningService) -> None:
    client = service.client()
    job = wait_for_status(client, create_job(client, upload(client, rows(24)), epochs=30).id, "succeeded")
    assert job.fine_tuned_model is not None
    ends = {}
    for model in ("luthier-tiny", job.fine_tuned_model):
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "1 red?"}], max_tokens=40, temperature=0
        )
        ends[model] = answer.choices[0].finish_reason
    assert ends == {"luthier-tiny": "length", job.fine_tuned_model: "stop"}
