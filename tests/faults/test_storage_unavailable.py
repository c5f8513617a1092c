"""The S3 server hangs while a job trains: the training continues, clients get 503, and the model is whole."""

import random
import time
from collections.abc import Iterator

import openai
import pytest

from tests.given.journey import create_job, rows, upload
from tests.given.running_service import RunningService, running, wait_for, wait_for_status
from tests.given.tiny_models import make_tiny_base
from tests.servers.radosgw import Radosgw

pytestmark = pytest.mark.slow
AWAY_SECONDS = 20.0


@pytest.fixture(scope="module")
def service(radosgw: Radosgw, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service") / "data"
    settings = {
        **radosgw.settings,
        "storage_url": f"{radosgw.new_bucket()}/prefix",
        "storage_read_timeout_seconds": 2,
        "storage_attempts": 2,
        "snapshot_steps": 10,
        "trainer_threads": 1,
        "engine_threads": 1,
    }
    with running(folder, make_tiny_base(tmp_path_factory.mktemp("base")), **settings) as service:
        yield service


def test_a_job_trains_on_while_the_storage_hangs_and_its_model_comes_whole(
    radosgw: Radosgw, service: RunningService
) -> None:
    client = service.client()
    seed = random.SystemRandom().randrange(10**6)
    training_file = upload(client, rows(60))
    job_id = create_job(client, training_file, epochs=8, batch=1).id  # 480 steps
    impatient = client.with_options(max_retries=0)

    def step() -> int:
        return int(client.fine_tuning.jobs.retrieve(job_id).progress["step"])  # type: ignore[attr-defined]

    moment = random.Random(seed).randrange(5, 60)
    wait_for(lambda: step() >= moment, 120, f"step {moment}")
    radosgw.pause()
    try:
        before, since = step(), time.monotonic()
        with pytest.raises(openai.InternalServerError) as refused:
            upload(impatient, rows(10))
        assert refused.value.status_code == 503
        assert refused.value.type == "server_error"
        with pytest.raises(openai.InternalServerError, match="storage is not available"):
            impatient.files.content(training_file)
        wait_for(lambda: step() > before + 20, 60, f"more steps than {before} although storage hangs")
        time.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - since)))
    finally:
        radosgw.resume()
    print(f"seed {seed}: hangs at step {before}")  # noqa: T201
    job = wait_for_status(client, job_id, "succeeded", seconds=240, pause=0.5)
    assert job.fine_tuned_model is not None
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "1 red?"}], max_tokens=4
    )
    assert answer.choices[0].message.content is not None
    said = [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100) if event.level == "warn"]
    assert len(said) == len(set(said))
    assert client.files.content(training_file).read() == rows(60)
