"""The whole journey on the production set: Postgres, Valkey, radosgw, two workers, and a real vLLM that dies."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from openai import OpenAI

from tests.faults.invariants import check_callable, wait_until_final
from tests.faults.rounds import ROUNDS, round_seed
from tests.faults.streams import read_stream
from tests.faults.strikes import TRAINER
from tests.given.journey import create_job, rows, upload
from tests.given.running_service import ROOT, alive, kill, wait_for
from tests.given.tiny_models import make_tiny_base
from tests.production import Production, production
from tests.servers.radosgw import check_radosgw
from tests.servers.vllm import HEAD_DIM, vllm_python
from workers.toy_base.tokenizer import SPECIAL_TOKENS

pytestmark = pytest.mark.slow

STREAMS = 12  # at 200 tokens each they take about a second
LATEST_SECONDS = 0.3
AGREE = "New fine-tuned model's log-probabilities agree with its training"
WAITING = "it waits for an engine"
ENDLESS = {"logit_bias": {str(id): -100 for id in range(len(SPECIAL_TOKENS))}}  # no token may end an answer
QUESTION = "0 red?"


@pytest.fixture(scope="module")
def made() -> Iterator[Production]:
    """One for this module; every test but the last leaves it running. With one slot to a worker, two jobs need both."""
    check_radosgw()
    vllm_python()
    with TemporaryDirectory(prefix="luthier-production-") as folder:  # PostgreSQL, not root, cannot enter pytest's
        base = make_tiny_base(Path(folder) / "base", head_dim=HEAD_DIM)
        with production(Path(folder), base, "vllm", slots=1) as made:
            yield made


@pytest.fixture(scope="module")
def training_file(made: Production) -> str:
    return upload(made.client(), rows(40))


@pytest.fixture(scope="module")
def models(made: Production, training_file: str) -> list[str]:
    """Two tuned models, one that shouts and one that whispers."""
    client = made.client()
    files = (training_file, upload(client, rows(40).lower()))
    jobs = [create_job(client, file, epochs=6) for file in files]
    return [succeeded(client, job.id) for job in jobs]


def succeeded(client: OpenAI, job_id: str) -> str:
    job = wait_until_final(client, job_id)
    assert (job.status, job.error) == ("succeeded", None)
    assert job.fine_tuned_model is not None
    return job.fine_tuned_model


def said(client: OpenAI, job_id: str) -> list[str]:
    """The job's messages, oldest first."""
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=100))
    return [event.message for event in reversed(events) if event.type == "message"]


def test_two_jobs_train_on_two_workers_and_answer_from_the_vllm_that_runs(made: Production, training_file: str) -> None:
    client, vllm = made.client(), made.engine.below("vllm")
    jobs = [create_job(client, training_file, epochs=40, suffix=suffix) for suffix in ("one", "two")]

    def both_train() -> bool:
        steps = [client.fine_tuning.jobs.retrieve(job.id).progress["step"] for job in jobs]  # type: ignore[attr-defined]
        return all(steps) and all(worker.below(TRAINER) for worker in made.workers)

    wait_for(both_train, 90, "both workers train")
    for job in jobs:
        model = succeeded(client, job.id)
        assert sum(message.startswith(AGREE) for message in said(client, job.id)) == 1
        assert model in [model.id for model in client.models.list()]
        asked = time.monotonic()
        stream = client.with_options(max_retries=0).chat.completions.create(
            model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=8, stream=True, temperature=0
        )
        first = next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
        assert first.model == model
        print(f"the first token after {time.monotonic() - asked:.2f} s")  # noqa: T201
        stream.close()
        assert check_callable(client, model) != check_callable(client, "tiny"), "that is the base"
    assert made.engine.below("vllm") == vllm, "vLLM was started again"


@contextmanager
def streams_that_are_cut(made: Production, models: list[str]) -> Iterator[None]:
    """The block kills vLLM while it streams: every stream ends at once, and at least one of them by a clean error."""
    seed = round_seed()
    moment = random.Random(seed).uniform(0, LATEST_SECONDS)
    print(f"seed {seed}, {moment:.2f} s after the streams' beginning")  # noqa: T201
    ends: list[str] = []
    streams = [
        threading.Thread(target=read_stream, args=(made, models[number % 2], ends), kwargs=ENDLESS)
        for number in range(STREAMS)
    ]
    for stream in streams:
        stream.start()
    time.sleep(moment)
    yield
    for stream in streams:
        stream.join(30)
    assert not any(stream.is_alive() for stream in streams), "a stream hangs"
    assert len(ends) == STREAMS
    assert set(ends) <= {"ended", "clean error"}, ends
    assert "clean error" in ends, "vLLM was killed too late"


def said_by(client: OpenAI, models: list[str]) -> dict[str, str]:
    """What the base and two models that differ from it say."""
    said = {model: check_callable(client, model) for model in ["tiny", *models]}
    assert len(set(said.values())) == 3, "the models differ"
    return said


@pytest.mark.parametrize("round_number", range(max(1, ROUNDS // 2)))
def test_vllms_core_and_then_its_machine_lost_while_it_streams_and_every_model_comes_back(
    made: Production, models: list[str], training_file: str, round_number: int
) -> None:
    """First only the process that computes: our command must notice and start all of vLLM again.

    While that one starts, its machine is lost. The engine starts on another, which has nothing in its cache, when a
    training has ended meanwhile.
    """
    client = made.client()
    before = said_by(client, models)
    with streams_that_are_cut(made, models):
        api = made.engine.below("vllm.entrypoints")[0]
        [core] = made.engine.below("EngineCore")
        kill(core)
    wait_for(lambda: api not in made.engine.below(), 60, "vLLM ends")
    wait_for(lambda: bool(made.engine.below("vllm.entrypoints")), 60, "our command starts vLLM again")
    made.engine.kill_all()
    made.forget_engine_cache()
    job = create_job(client, training_file)
    wait_for(lambda: any(WAITING in message for message in said(client, job.id)), 90, "the job waits")
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    made.engine.start()
    made.wait_ready()
    assert said_by(client, models) == before
    check_callable(client, succeeded(client, job.id))
    assert sum(message.startswith(AGREE) for message in said(client, job.id)) == 1


def test_the_doctor_finds_nothing_wrong(made: Production, tmp_path: Path) -> None:
    environment = made.environment | {"LUTHIER_DATA_DIR": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-m", "service", "doctor", "--probe"]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stdout
    assert f"{made.engine_url} serves tiny" in found.stdout


def test_sigterm_ends_the_engine_and_all_of_vllm(made: Production) -> None:
    left = made.engine.below()
    made.engine.stop()
    assert made.engine.popen is not None and made.engine.popen.poll() == 0, made.logs()
    assert not any(map(alive, left))
