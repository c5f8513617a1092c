"""A dpo job in a real trainer process that is killed: while its reference is made, and while it trains."""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.given.recipes import recipe
from tests.given.slots import LORA
from tests.given.tiny_models import make_tiny_base, random_pairs
from tests.given.trainers import Bits, read_bits, run_through_crashes, trainer
from workers.model.load import environment, load_base
from workers.trainer.process.slot import Phase, Slot
from workers.trainer.protocol import Crashed, JobSpec, Report, Seated, Stepped

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forks")]
TRAIN, VALID = random_pairs(12, seed=1), random_pairs(4, seed=2)
SPEC = JobSpec(
    job_id="dpo", recipe=recipe(LORA, "dpo", beta=0.1), n_epochs=3, batch_size=3,
    learning_rate=1e-2, seed=7, snapshot_steps=3,
)  # fmt: skip


async def test_a_dpo_job_that_is_killed_ends_in_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    folder = tmp_path / SPEC.job_id
    folder.mkdir()
    (folder / "job.json").write_text(SPEC.model_dump_json())
    TRAIN.save(folder / "train.safetensors")
    VALID.save(folder / "valid.safetensors")
    left = [Seated, Stepped]  # killed once in its seat, once on its way
    async with trainer(base) as handle:

        def watch(report: Report | Crashed) -> None:
            if left and isinstance(report, left[0]) and getattr(report, "step", 0) in (0, 5):
                left.pop(0)
                assert handle.pid is not None
                os.kill(handle.pid, signal.SIGKILL)

        outcome = await run_through_crashes(handle, folder, watch)
    assert not left and len(outcome.of(Crashed)) == 2
    torch.use_deterministic_algorithms(True)
    loaded = load_base(base, torch.device("cpu"))
    slot = Slot(loaded, environment(loaded.device), SPEC, TRAIN, VALID)
    metrics = []
    while slot.phase is Phase.PREPARE:
        slot.prepare()
    while not slot.finished:
        metrics.append(slot.train_step().metrics)
    slot.save_adapter(tmp_path / "undisturbed")
    expected: Bits = read_bits(tmp_path / "undisturbed")
    assert outcome.bits == expected
    told = {report.step: report.metrics for report in outcome.of(Stepped)}
    assert [told[step] for step in sorted(told)] == metrics
