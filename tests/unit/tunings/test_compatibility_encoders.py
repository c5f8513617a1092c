"""Every tuning on encoders, with a classifier's head, keeps its promises, or is refused as the page says."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from service.recipes.objectives.classification import ClassificationSettings
from service.recipes.recipe import Recipe
from service.recipes.tuning import tuning_of
from tests.given.compatibility import encoder, encoder_refusal
from tests.given.encoders import ENCODERS, labelled_rows
from tests.given.forked_process import output_of
from tests.given.opened import LOGITS
from tests.given.tuned import classified
from tests.given.tunings import ELSEWHERE, KINDS, NEAR
from workers.model.adapters import Adapters
from workers.model.load import LoadedBase, environment, weights_digest
from workers.model.states import hidden_states
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import HeadRow, JobSpec
from workers.tunings.base import Chunk, plain_inputs

ROWS = labelled_rows(8)
CELLS = [(name, kind) for name in ENCODERS for kind in KINDS if not encoder_refusal(name, kind)]


def seat(base: LoadedBase, kind: str) -> Slot:
    """A job of four steps."""
    recipe = Recipe(objective=ClassificationSettings(), tuning=tuning_of(KINDS[kind]), task="classify")
    spec = JobSpec(
        job_id="cell", recipe=recipe, n_epochs=1, batch_size=2, learning_rate=1e-2, seed=3, snapshot_steps=100
    )
    return Slot(base, environment(base.device), spec, ROWS, None)


def saved(slot: Slot, folder: Path) -> dict[str, bytes]:
    slot.save_adapter(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def trace(base: LoadedBase) -> tuple[list[tuple[str, int, int]], str]:
    """Every module with its hooks, and the weights."""
    modules = [
        (name, id(module), len(module._forward_hooks) + len(module._forward_pre_hooks))
        for name, module in base.model.named_modules()
    ]
    return modules, weights_digest(base.model)


@torch.no_grad()
def states(base: LoadedBase, slot: Slot | None, ids: list[int]) -> torch.Tensor:
    """hidden_1TH of one row, with the job's tuning or without any."""
    if slot is None:
        return hidden_states(base.model, base.kind, plain_inputs(_chunk(ids)))
    with slot._working():
        inputs = slot._tuning.inputs(_chunk(ids))
        return hidden_states(slot._tuning.model, base.kind, inputs)


def _chunk(ids: list[int]) -> Chunk:
    return Chunk(torch.tensor([ids]), None, torch.tensor([len(ids)]))


@dataclass(frozen=True)
class Cell:
    """What a job of one tuning on one family left in its folder, and gave."""

    folder: Path  # the adapter, with a row and what its head returns of it; a snapshot of step 2
    at_start: float  # the greatest distance to the base's states
    files: dict[str, bytes]
    rows: list[HeadRow]


@cache
def cell(name: str, kind: str, root: Path) -> Cell:
    base, folder, ids = encoder(name), root / f"{name}.{kind}", ROWS.row(0)[0].tolist()
    plain_1TH = states(base, None, ids)
    slot = seat(base, kind)
    at_start = float((states(base, slot, ids) - plain_1TH).abs().max())
    while not slot.finished:
        if slot.step == 2:
            slot.snapshot().write(folder / "snapshot")
        slot.train_step()
    files, rows = saved(slot, folder / "adapter"), slot.head_rows()
    values = torch.tensor(rows[0].values, dtype=torch.float64)
    save_file({"ids": torch.tensor(rows[0].ids), "values": values}, folder / LOGITS)
    slot.leave()
    return Cell(folder, at_start, files, rows)


@pytest.mark.parametrize(("name", "kind"), CELLS)
def test_a_tuning_keeps_its_promises_on_an_encoder(name: str, kind: str, root: Path, tmp_path: Path) -> None:
    base = encoder(name)
    before = trace(base)
    seen = cell(name, kind, root)
    assert trace(base) == before
    if kind not in ELSEWHERE:
        assert seen.at_start <= NEAR.get(kind, 0.0)
    assert b"CAUSAL_LM" not in seen.files["adapter_config.json"]
    assert any(row.values != row.base_values for row in seen.rows)
    again = seat(base, kind)
    again.restore(seen.folder / "snapshot")
    while not again.finished:
        again.train_step()
    assert saved(again, tmp_path / "again") == seen.files
    again.leave()
    adapters = Adapters(base.model)
    adapter = adapters.attach(seen.folder / "adapter")
    assert classified(adapter, base, seen.rows[0].ids) == seen.rows[0].values
    adapters.detach(adapter)
    assert trace(base) == before


@pytest.mark.slow
def test_what_is_saved_gives_the_same_bits_in_a_new_process(root: Path) -> None:
    for name, kind in CELLS:
        cell(name, kind, root)
    assert output_of(["-m", "tests.given.opened", str(root)]) == f"opened: {len(CELLS)}\n"


def test_most_tunings_go_with_encoders() -> None:
    assert len(CELLS) >= 0.7 * len(ENCODERS) * len(KINDS)
    assert "kind: causal" in encoder_refusal("bert", "prefix")
