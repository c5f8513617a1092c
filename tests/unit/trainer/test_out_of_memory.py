"""A step that runs out of memory is computed again in smaller parts, and the job is one that had always been so cut."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from service.domain.errors import JobError
from tests.given.recipes import recipe
from tests.given.slots import LORA, TRAIN, VALID, adapter, seat
from tests.given.slots import run as train
from tests.given.tiny_models import make_tiny_base
from tests.given.trainer_in_process import Script, job_folder, run
from workers.data.batches import Batch
from workers.model.load import LoadedBase, load_base
from workers.objectives.base import Forward, Loss
from workers.objectives.supervised import Supervised
from workers.trainer.protocol import JobSpec, Left, Snapshotted

PLAIN = {"type": "lora", "lora": {**LORA["lora"], "dropout": 0.0}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Memory for so many rows of a training pass at a time: with more it runs out after the backward pass."""

    def limit(rows: int) -> None:
        compute = Supervised.loss

        def loss(self: Supervised, forward: Forward, batch: Batch) -> Loss:
            found = compute(self, forward, batch)
            if torch.is_grad_enabled() and len(batch.input_ids_BT) > rows:
                torch.rand(3)  # and draws random numbers before
                found.total.backward()  # type: ignore[no-untyped-call]
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
            return found

        monkeypatch.setattr(Supervised, "loss", loss)

    return limit


def test_the_step_is_repeated_with_the_same_effective_batch(
    base: LoadedBase, memory_for: Callable[[int], None], tmp_path: Path
) -> None:
    """Neither gradients nor random numbers of the failed try are left, and a snapshot has the smaller parts."""
    whole = seat(base, "whole", PLAIN)
    expected = train(whole)
    whole.leave()
    memory_for(1)
    plain = seat(base, "plain", PLAIN)
    found = train(plain)
    plain.leave()
    assert [one["train_loss"] for one in found] == pytest.approx([one["train_loss"] for one in expected], rel=1e-4)
    cut = seat(base, "cut")  # with dropout
    cut.train_step()
    assert cut.limit_tokens is not None
    cut.snapshot().write(tmp_path / "snapshot")
    of_cut = train(cut)
    bits = adapter(cut, tmp_path / "cut")
    always = seat(base, "always")
    always._passes.limit_tokens = cut.limit_tokens
    always.train_step()
    assert train(always) == of_cut
    assert adapter(always, tmp_path / "always") == bits
    resumed = seat(base, "resumed")
    assert resumed.restore(tmp_path / "snapshot") == ""
    assert resumed.limit_tokens == cut.limit_tokens
    assert train(resumed) == of_cut
    assert adapter(resumed, tmp_path / "resumed") == bits
    for slot in (cut, always, resumed):
        slot.leave()


def test_a_single_example_that_does_not_fit_fails_the_job(base: LoadedBase, memory_for: Callable[[int], None]) -> None:
    memory_for(0)
    slot = seat(base, "giant")
    with pytest.raises(JobError) as raised:
        slot.train_step()
    slot.leave()
    assert raised.value.code == "out_of_memory"


def test_what_was_cut_is_stored_at_once(base: LoadedBase, memory_for: Callable[[int], None], tmp_path: Path) -> None:
    memory_for(1)
    spec = JobSpec(
        job_id="cut", recipe=recipe(LORA), n_epochs=2, batch_size=3, learning_rate=1e-2, seed=7, snapshot_steps=100
    )
    script = Script(job_folder(tmp_path, spec, TRAIN, VALID))
    run(base, script)
    assert script.of("cut", Snapshotted)[0].step == 1
    assert script.of("cut", Left)[0].finished
