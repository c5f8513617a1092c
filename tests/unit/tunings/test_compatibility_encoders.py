"""Every tuning on encoders, with a classifier's head, keeps its promises, or is refused as the page says."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from service.recipes.objectives.classification import ClassificationSettings
from service.recipes.recipe import Recipe
from service.recipes.tuning import tuning_of
from tests.given.compatibility import encoder, encoder_refusal
from tests.given.encoders import ENCODERS, labelled_rows
from tests.given.opened import LOGITS
from tests.given.tuned import classified
from tests.given.tunings import ELSEWHERE, KINDS, NEAR
from workers.model.adapters import Adapters
from workers.model.load import LoadedBase, environment, weights_digest
from workers.model.states import hidden_states
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec
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


@pytest.mark.parametrize(("name", "kind"), CELLS)
def test_a_tuning_keeps_its_promises_on_an_encoder(name: str, kind: str, tmp_path: Path) -> None:
    base = encoder(name)
    before, ids = trace(base), ROWS.row(0)[0].tolist()
    plain_1TH = states(base, None, ids)
    slot = seat(base, kind)
    if kind not in ELSEWHERE:
        torch.testing.assert_close(states(base, slot, ids), plain_1TH, atol=NEAR.get(kind, 0.0), rtol=0)
    while not slot.finished:
        if slot.step == 2:
            slot.snapshot().write(tmp_path / "snapshot")
        slot.train_step()
    trained = saved(slot, tmp_path / "trained")
    assert b"CAUSAL_LM" not in trained["adapter_config.json"]
    rows = slot.head_rows()
    assert any(row.values != row.base_values for row in rows)
    slot.leave()
    assert trace(base) == before
    again = seat(base, kind)
    again.restore(tmp_path / "snapshot")
    while not again.finished:
        again.train_step()
    assert saved(again, tmp_path / "again") == trained
    again.leave()
    adapters = Adapters(base.model)
    adapter = adapters.attach(tmp_path / "trained")
    assert classified(adapter, base, rows[0].ids) == rows[0].values
    adapters.detach(adapter)
    assert trace(base) == before


@pytest.mark.slow
def test_what_is_saved_gives_the_same_bits_in_a_new_process(tmp_path: Path) -> None:
    for name, kind in CELLS:
        slot, folder = seat(encoder(name), kind), tmp_path / f"{name}.{kind}"
        while not slot.finished:
            slot.train_step()
        saved(slot, folder / "adapter")
        row = slot.head_rows()[0]
        values = torch.tensor(row.values, dtype=torch.float64)
        save_file({"ids": torch.tensor(row.ids), "values": values}, folder / LOGITS)
        slot.leave()
    opened = subprocess.run(
        [sys.executable, "-m", "tests.given.opened", str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert opened.returncode == 0, opened.stderr
    assert opened.stdout == f"opened: {len(CELLS)}\n"


def test_most_tunings_go_with_encoders() -> None:
    assert len(CELLS) >= 0.7 * len(ENCODERS) * len(KINDS)
    assert "kind: causal" in encoder_refusal("bert", "prefix")
