"""A tuning that changes the base's own weights, in a copy that shares the rest, beside tunings of the base itself."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from service.domain.errors import JobError
from service.recipes.tuning import tuning_of
from tests.given.families import FAMILIES, make_family
from tests.given.own_tunings import OWN_SPECS, LastBlock, offer_own
from tests.given.recipes import recipe
from tests.given.tiny_models import make_tiny_base, random_rows
from workers.model.load import LoadedBase, environment, load_base, weights_digest
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec
from workers.tunings import create_tuning
from workers.tunings.base import private_bytes, private_copy
from workers.tunings.sites import Site

LORA: dict[str, Any] = {
    "type": "lora",
    "lora": {"r": 4, "alpha": 16, "dropout": 0.1, "target_modules": "all-linear"},
}
ROWS = random_rows(8)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadedBase]:
    """The base; no test leaves a trace in it."""
    offer_own(monkeypatch)
    loaded = load_base(make_tiny_base(tmp_path / "base"), torch.device("cpu"))
    yield loaded
    assert weights_digest(loaded.model) == loaded.hashes["weights"]
    assert not any(isinstance(module, Site) for module in loaded.model.modules())


def seat(base: LoadedBase, tuning: dict[str, Any], job_id: str) -> Slot:
    spec = JobSpec(
        job_id=job_id, recipe=recipe(tuning), n_epochs=2, batch_size=4, learning_rate=1e-2, seed=3, snapshot_steps=100
    )  # fmt: skip
    return Slot(base, environment(base.device), spec, ROWS, None)


def digest(slot: Slot, folder: Path) -> str:
    slot.save_adapter(folder)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


def trained_alone(base: LoadedBase, tuning: dict[str, Any], folder: Path) -> str:
    slot = seat(base, tuning, "alone")
    while not slot.finished:
        slot.train_step()
    slot.check_changed()
    result = digest(slot, folder)
    slot.leave()
    return result


def test_a_private_copy_and_a_lora_train_side_by_side_as_alone(base: LoadedBase, tmp_path: Path) -> None:
    specs = {"lora": LORA, "last_block": OWN_SPECS["last_block"]}
    expected = {name: trained_alone(base, spec, tmp_path / f"{name}-alone") for name, spec in specs.items()}
    slots = {name: seat(base, spec, name) for name, spec in specs.items()}  # the copy is made while the lora is there
    while not all(slot.finished for slot in slots.values()):
        for slot in slots.values():
            slot.train_step()
    assert {name: digest(slot, tmp_path / name) for name, slot in slots.items()} == expected
    for slot in slots.values():
        slot.leave()


def test_a_job_goes_on_from_its_snapshot_in_a_new_copy(base: LoadedBase, tmp_path: Path) -> None:
    spec = OWN_SPECS["last_block"]
    expected = trained_alone(base, spec, tmp_path / "alone")
    slot = seat(base, spec, "broken")
    slot.train_step()
    slot.snapshot().write(tmp_path / "snapshot")
    slot.leave()
    again = seat(base, spec, "broken")
    assert not again.restore(tmp_path / "snapshot")
    while not again.finished:
        again.train_step()
    assert digest(again, tmp_path / "again") == expected
    again.leave()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_shares_all_that_does_not_move_and_keeps_ties(family: str) -> None:
    model = make_family(family)
    neighbour = create_tuning(tuning_of(LORA), model, "neighbour")
    neighbour.attach()
    last = {name for name, _ in model.named_parameters() if ".1." in name}
    assert last
    copied = private_copy(model, last.__contains__)
    assert not any(isinstance(module, Site) for module in copied.modules())
    shared = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    own = [tensor for tensor in [*copied.parameters(), *copied.buffers()] if tensor.data_ptr() not in shared]
    assert {name for name, one in copied.named_parameters() if one.requires_grad} == last
    assert sum(tensor.nbytes for tensor in own) == private_bytes(model, last.__contains__) > 0
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert (copied.get_output_embeddings().weight is copied.get_input_embeddings().weight) == tied
    neighbour.detach()


def test_a_tuning_that_would_not_fit_into_memory_is_refused_before_it_is_made(
    base: LoadedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LastBlock, "memory_bytes", lambda self: 10**18)
    with pytest.raises(JobError, match=r"need \d+ bytes") as refused:
        seat(base, OWN_SPECS["last_block"], "enormous")
    assert refused.value.code == "out_of_memory"
