"""Processes killed while a job trains: it continues from its snapshot and ends in the same bits, once."""

import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest
from openai import OpenAI

from service.recipes.base import Base
from tests.given.journey import create_job, messages, rows, upload, weights_hash
from tests.given.running_service import (
    STOP_SECONDS,
    RunningService,
    alive,
    kill,
    running,
    wait_for,
    wait_for_status,
)
from tests.given.tiny_models import make_tiny_base

pytestmark = pytest.mark.slow
STEPS = 60
PAUSE_SECONDS = 0.2  # between two looks at a job, which cost more than a step of it


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def service(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    folder = tmp_path_factory.mktemp("service") / "data"
    settings = {"trainer_threads": 1, "engine_threads": 1, "snapshot_steps": 10, "lease_seconds": 6, "crash_limit": 9}
    with running(folder, base, **settings) as service:
        yield service


@pytest.fixture(scope="module")
def training_file(service: RunningService) -> str:
    return upload(service.client(), rows(24))


def start(client: OpenAI, training_file: str, tuning: str = "lora") -> str:
    """A job of `STEPS`."""
    return create_job(client, training_file, epochs=5, batch=2, tuning=tuning).id


@pytest.fixture(scope="module")
def undisturbed(service: RunningService, training_file: str) -> str:
    """The weights' hash of a job that nobody disturbs."""
    client = service.client()
    job = wait_for_status(client, start(client, training_file), "succeeded", pause=PAUSE_SECONDS)
    return weights_hash(service, job.fine_tuned_model)


def kill_trainers(service: RunningService) -> None:
    """That of the job and that of its neighbour, which may be the same."""
    for trainer in service.processes("workers.trainer"):
        kill(trainer)


def kill_supervisor(service: RunningService) -> None:
    """The trainers must go with it."""
    supervisor = service.processes("workers", "train", "--die-with-parent")[0]
    trainers = service.processes("workers.trainer")
    kill(supervisor)
    wait_for(lambda: not any(alive(pid) for pid in trainers), 10, "the trainers end with their supervisor")


def kill_both(service: RunningService) -> None:
    victims = [*service.processes("workers.trainer"), *service.processes("workers", "train", "--die-with-parent")]
    for pid in victims:
        kill(pid)


def step_of(client: OpenAI, job_id: str) -> int:
    return int(client.fine_tuning.jobs.retrieve(job_id).progress["step"])  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", [kill_trainers, kill_supervisor, kill_both])
def test_a_killed_process_changes_no_bit(
    service: RunningService, training_file: str, undisturbed: str, fault: Callable[[RunningService], None]
) -> None:
    client = service.client()
    seed = random.SystemRandom().randrange(10**6)
    moment = random.Random(seed).randrange(1, STEPS - 20)
    job_id = start(client, training_file)
    neighbour = start(client, training_file)
    wait_for(lambda: step_of(client, job_id) >= moment, 120, f"step {moment}")
    fault(service)
    job = wait_for_status(client, job_id, "succeeded", seconds=180, pause=PAUSE_SECONDS)
    beside = wait_for_status(client, neighbour, "succeeded", seconds=180, pause=PAUSE_SECONDS)
    print(f"seed {seed}: {fault.__name__} at step {moment}")  # noqa: T201
    assert weights_hash(service, job.fine_tuned_model) == undisturbed, f"seed {seed}, step {moment}"
    assert weights_hash(service, beside.fine_tuned_model) == undisturbed, f"seed {seed}, step {moment}"
    said = messages(client, job_id)
    assert len(said) == len(set(said))
    assert said.count("The job has successfully completed") == 1
    metrics = [event for event in client.fine_tuning.jobs.list_events(job_id, limit=100) if event.type == "metrics"]
    assert sorted(event.data["step"] for event in metrics) == list(range(1, STEPS + 1))  # type: ignore[index,arg-type]


def ctrl_c(service: RunningService) -> None:
    """Of an impatient user."""
    assert service.process is not None
    service.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    service.process.send_signal(signal.SIGINT)


def sigterm_to_all(service: RunningService) -> None:
    """As systemd sends it, unless its KillMode says otherwise: to every process, the children first here."""
    assert service.process is not None
    for pid in [*reversed(service.processes()), service.process.pid]:
        kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("end", [ctrl_c, sigterm_to_all])
def test_an_end_during_a_job_and_a_new_start_finish_it(
    service: RunningService, training_file: str, undisturbed: str, end: Callable[[RunningService], None]
) -> None:
    client = service.client()
    job_id = start(client, training_file)
    wait_for(lambda: step_of(client, job_id) >= 20, 120, "step 20")
    children = service.processes()
    key = service.key
    log_before = len(service.log)
    end(service)
    assert service.process is not None
    assert service.process.wait(STOP_SECONDS) == 0
    time.sleep(0.5)
    assert not [pid for pid in children if alive(pid)]
    assert "level=error" not in service.log[log_before:]
    with sqlite3.connect(service.folder / "luthier.db") as stored:
        ((step,),) = stored.execute("SELECT step FROM jobs WHERE id = ?", [job_id])
    stored.close()
    service.start()
    assert service.key == key
    job = wait_for_status(service.client(), job_id, "succeeded", seconds=180, pause=PAUSE_SECONDS)
    assert weights_hash(service, job.fine_tuned_model) == undisturbed
    assert f"event=job.continued job_id={job_id} step={step}\n" in service.log[log_before:], "a step was lost"


def test_a_frozen_worker_loses_its_job_and_its_late_writes(
    service: RunningService, training_file: str, undisturbed: str
) -> None:
    client = service.client()
    job_id = start(client, training_file)
    wait_for(lambda: step_of(client, job_id) >= 20, 120, "step 20")
    supervisor = service.processes("workers", "train", "--die-with-parent")[0]
    trainers = service.processes("workers.trainer")
    kill(supervisor, signal.SIGSTOP)
    try:
        end = "the trainers end before the lease of their frozen supervisor"
        wait_for(lambda: not any(alive(trainer) for trainer in trainers), 15, end)
    finally:
        kill(supervisor, signal.SIGCONT)
    job = wait_for_status(client, job_id, "succeeded", seconds=180, pause=PAUSE_SECONDS)
    assert weights_hash(service, job.fine_tuned_model) == undisturbed
    assert messages(client, job_id).count("The job has successfully completed") == 1
