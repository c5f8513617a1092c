"""A worker whose scratch is on a full disk: its job ends with a clear error, or as if nothing had happened."""

from pathlib import Path

import pytest

from tests.faults.invariants import check_succeeded, wait_until_final
from tests.faults.rounds import KINDS, ROUNDS
from tests.faults.strikes import TRAINER
from tests.faults.twins import Twins
from tests.given.running_service import wait_for
from tests.given.small_disk import fill, small_disk
from tests.production import Production

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("round_number", range(ROUNDS))]
KIND = KINDS[0]


def test_a_full_disk_is_a_clear_error_and_no_half_model(
    production_set: Production, twins: Twins, round_number: int
) -> None:
    """One worker, on a small disk that fills while it trains. Room again: the next job is as it should be."""
    twins.undisturbed(KIND)
    one, other = production_set.workers
    client = production_set.client()
    other.freeze()  # it holds nothing, and claims nothing meanwhile
    try:
        with small_disk(Path(one.environment["LUTHIER_DATA_DIR"]) / "scratch") as disk:
            job_id = twins.create(KIND)
            wait_for(lambda: bool(one.below(TRAINER)) and _is_running(production_set, job_id), 90, "the job trains")
            filling = fill(disk)
            job = wait_until_final(client, job_id)
            if job.status == "failed":
                assert job.error is not None
                assert job.error.code == "disk_full", job.error
                assert "disk" in job.error.message
                assert job.fine_tuned_model is None
            else:
                check_succeeded(production_set, twins, job_id, KIND)  # its last snapshot had been written before
            filling.unlink()
            check_succeeded(production_set, twins, twins.create(KIND), KIND)
    finally:
        other.thaw()


def _is_running(production: Production, job_id: str) -> bool:
    return production.client().fine_tuning.jobs.retrieve(job_id).status in ("running", "succeeded")
