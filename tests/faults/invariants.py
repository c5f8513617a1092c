"""What must hold of every job whatever was broken meanwhile. Raises AssertionError with the job's id."""

import csv
import time

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from service.domain import event as wording
from tests.faults.twins import STEPS, Twins, told, weights_hash
from tests.production import Production

FINAL = ("succeeded", "failed", "cancelled")


def wait_until_final(client: OpenAI, job_id: str, seconds: float = 240.0) -> FineTuningJob:
    """The job in whichever final state. An API that is down for a moment is asked again by the SDK itself."""
    deadline = time.monotonic() + seconds
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in FINAL:
        assert time.monotonic() < deadline, f"{job_id} is still {job.status} after {seconds} s"
        time.sleep(0.3)
    return job


def check_succeeded(production: Production, twins: Twins, job_id: str, kind: int) -> None:
    """It succeeded, once; every step is told and filed once; its weights are those of its undisturbed twin."""
    client = production.client()
    job = wait_until_final(client, job_id)
    assert job.status == "succeeded", (job_id, job.status, job.error)
    check_told_once(client, job_id)
    check_result_file(client, job)
    assert job.fine_tuned_model is not None
    assert weights_hash(production, job.fine_tuned_model) == twins.undisturbed(kind), f"{job_id}: other weights"
    model = client.models.retrieve(job.fine_tuned_model)
    assert model.id == job.fine_tuned_model


def check_told_once(client: OpenAI, job_id: str) -> None:
    """One `succeeded`, no event doubled, no step missing."""
    said, steps = told(client, job_id)
    assert said.count(wording.succeeded().message) == 1, (job_id, said)
    assert said.count(wording.created(job_id).message) == 1, (job_id, said)
    assert len(said) == len(set(said)), (job_id, said)
    assert steps == list(range(1, STEPS + 1)), (job_id, steps)


def check_result_file(client: OpenAI, job: FineTuningJob) -> None:
    """One file with a line for every step, whatever storage did while it was stored."""
    (file_id,) = job.result_files
    content = client.files.content(file_id, extra_headers={"Accept": "text/csv"}).text
    steps = [int(row["step"]) for row in csv.DictReader(content.splitlines())]
    assert steps == list(range(1, STEPS + 1)), (job.id, content)


def check_one_artifact(production: Production, job_id: str) -> None:
    """Of the final model there is one name; what a lost attempt stored is nobody's."""
    client = production.client()
    job = client.fine_tuning.jobs.retrieve(job_id)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job_id))
    names = [checkpoint.fine_tuned_model_checkpoint for checkpoint in checkpoints]
    assert names.count(str(job.fine_tuned_model)) == 1, (job_id, names)
    assert len(names) == len(set(names)), (job_id, names)


def check_callable(client: OpenAI, model: str, seconds: float = 60.0) -> str:
    """The model answers; 503 while its engine comes back is waited for. Returns the text."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = client.with_options(max_retries=0).chat.completions.create(
                model=model, messages=[{"role": "user", "content": "0 red?"}], max_tokens=8, temperature=0
            )
            return str(answer.choices[0].message.content)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
