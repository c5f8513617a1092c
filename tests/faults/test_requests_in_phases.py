"""Cancel, pause, and deletes at a random moment of a job's life: its state, its models and its files fit together."""

import random
import time

import pytest
from openai import BadRequestError, NotFoundError

from tests.faults.invariants import check_callable, check_succeeded, wait_until_final
from tests.faults.rounds import KINDS, ROUND_SECONDS, ROUNDS, round_seed
from tests.faults.twins import ROWS, Twins, told
from tests.given.journey import rows
from tests.given.running_service import wait_for
from tests.production import Production

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("round_number", range(ROUNDS))]
KIND = KINDS[0]


def a_moment(what: str) -> float:
    """Somewhere between the job's creation and its end."""
    seed = round_seed()
    moment = random.Random(seed).uniform(0, ROUND_SECONDS)
    print(f"{what}: seed {seed}, {moment:.2f} s after the job's creation")  # noqa: T201
    return moment


def test_a_cancelled_job_ends_at_once_and_leaves_no_model(
    production_set: Production, twins: Twins, round_number: int
) -> None:
    client = production_set.client()
    twins.undisturbed(KIND)
    job_id = twins.create(KIND)
    time.sleep(a_moment("cancel"))
    try:
        assert client.fine_tuning.jobs.cancel(job_id).status == "cancelled"
    except BadRequestError:
        check_succeeded(production_set, twins, job_id, KIND)  # it was faster
        return
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.status, job.fine_tuned_model, job.result_files) == ("cancelled", None, [])
    said, _ = told(client, job_id)
    after_cancel = said[said.index("The job was cancelled") :]
    assert after_cancel == ["The job was cancelled"]
    time.sleep(1)
    assert told(client, job_id)[0] == said, "a worker wrote to a cancelled job"
    follower = twins.create(KIND)  # its slot is free
    check_succeeded(production_set, twins, follower, KIND)


def test_a_paused_and_resumed_job_ends_in_the_same_bits(
    production_set: Production, twins: Twins, round_number: int
) -> None:
    client = production_set.client()
    twins.undisturbed(KIND)
    job_id = twins.create(KIND)
    time.sleep(a_moment("pause"))
    try:
        client.fine_tuning.jobs.pause(job_id)
    except BadRequestError:
        check_succeeded(production_set, twins, job_id, KIND)  # it was faster, or is being checked still
        return
    wait_for(
        lambda: client.fine_tuning.jobs.retrieve(job_id).status in ("paused", "succeeded"),
        60,
        f"{job_id} comes to rest",
    )
    if client.fine_tuning.jobs.retrieve(job_id).status == "paused":
        client.fine_tuning.jobs.resume(job_id)
    check_succeeded(production_set, twins, job_id, KIND)


def test_a_deleted_training_file_fails_a_job_that_had_not_started_and_no_other(
    production_set: Production, twins: Twins, round_number: int
) -> None:
    client = production_set.client()
    twins.undisturbed(KIND)
    own = client.files.create(file=("own.jsonl", rows(ROWS)), purpose="fine-tune").id
    job_id = twins.create(KIND, own)
    time.sleep(a_moment("delete the training file"))
    client.files.delete(own)
    job = wait_until_final(client, job_id)
    if job.status == "failed":
        assert job.error is not None
        assert job.error.code == "deleted_training_file"
    else:
        check_succeeded(production_set, twins, job_id, KIND)
    with pytest.raises(NotFoundError):
        client.files.retrieve(own)


def test_a_deleted_model_is_gone_for_good(production_set: Production, twins: Twins, round_number: int) -> None:
    client = production_set.client()
    job_id = twins.create(KIND)
    model = wait_until_final(client, job_id).fine_tuned_model
    assert model is not None
    check_callable(client, model)
    client.models.delete(model)
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "0 red?"}])
    assert client.fine_tuning.jobs.retrieve(job_id).status == "succeeded"
