"""Shape alone proves little: a job that is created as openai-python's tests create it trains, and its model answers."""

import time
from pathlib import Path

import openai
import pytest

from service.domain.job import FINAL
from tests.conformance.processes import served
from tests.given import seeds

TRAINED_SECONDS = 180.0


@pytest.mark.slow
def test_a_job_as_the_suite_creates_it_trains_and_its_model_answers(tmp_path: Path) -> None:
    with (
        served(tmp_path, "engine", "train") as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=seeds.API_KEY) as client,
    ):
        job = client.fine_tuning.jobs.create(
            model="gpt-4o-mini", training_file="file-abc123", validation_file="file-abc123", seed=42, suffix="x"
        )
        deadline = time.monotonic() + TRAINED_SECONDS
        while job.status not in FINAL and time.monotonic() < deadline:
            time.sleep(0.5)
            job = client.fine_tuning.jobs.retrieve(job.id)
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model is not None
        question = [{"role": "user", "content": "3 + 1"}]
        answer = client.chat.completions.create(model=job.fine_tuned_model, messages=question, max_tokens=8)  # type: ignore[arg-type]
        assert answer.model == job.fine_tuned_model
        assert answer.choices[0].message.content
