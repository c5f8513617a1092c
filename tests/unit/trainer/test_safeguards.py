"""Early ends, the best step and the forgetting report in a trainer: the same bits alone, resumed and without them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from service.recipes.safeguards import EarlyStopping, Safeguards
from tests.given.recipes import recipe
from tests.given.slots import LORA, PROMPT, TRAIN, VALID, adapter, run, seat
from tests.given.tiny_models import make_tiny_base
from tests.given.trainer_in_process import Script, job_folder
from tests.given.trainer_in_process import run as run_trainer
from workers.data.general_text import general_text
from workers.model.load import LoadedBase, load_base
from workers.trainer.process.slot import Phase
from workers.trainer.protocol import Checkpointed, JobSpec, Left, Stepped

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 6, 4  # of an epoch: the loss on VALID, random rows, falls for an epoch or two and then rises
STEADY = {"type": "lora", "lora": {**LORA["lora"], "dropout": 0.0}}  # else chance decides where it does
BEST = Safeguards(checkpoint_selection="best")
STOPPING = Safeguards(early_stopping=EarlyStopping(patience=2), checkpoint_selection="best", forgetting_report=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


def spec(safeguards: Safeguards, job_id: str = "ftjob-1") -> JobSpec:
    return JobSpec(
        job_id=job_id, recipe=recipe(STEADY), n_epochs=EPOCHS, batch_size=3, learning_rate=3e-2, seed=7,
        snapshot_steps=100, safeguards=safeguards,
    )  # fmt: skip


def trained(base: LoadedBase, root: Path, safeguards: Safeguards, resume: Path | None = None) -> Script:
    """A job's whole stay in a trainer, from a snapshot on if `resume` names one."""
    root.mkdir()
    folder = job_folder(root, spec(safeguards), TRAIN, VALID)
    if resume is not None:
        (folder / "resume").symlink_to(resume)
    script = Script(folder)
    run_trainer(base, script)
    assert script.of("ftjob-1", Left)[0].finished
    return script


def bits(checkpoint: Checkpointed) -> bytes:
    return (Path(checkpoint.folder) / "adapter_model.safetensors").read_bytes()


def losses(script: Script) -> dict[int, float]:
    """Step to loss, at the end of each epoch."""
    steps = [report.metrics for report in script.of("ftjob-1", Stepped)]
    return {int(one["step"]): one["full_valid_loss"] for one in steps if "full_valid_loss" in one}


def test_the_best_step_is_the_result_and_has_the_bits_that_it_had_when_it_was_measured(
    base: LoadedBase, tmp_path: Path
) -> None:
    plain = trained(base, tmp_path / "plain", Safeguards())
    chosen = trained(base, tmp_path / "best", BEST)
    for report in plain.of("ftjob-1", Stepped):
        rate, norm, speed = (report.pace[name] for name in ("learning_rate", "grad_norm", "tokens_per_second"))
        assert 0 < rate <= 1 and norm > 0 and speed > 0, report
    measured = losses(chosen)
    assert measured == losses(plain), "nothing but the choice differs"
    step = min(measured, key=lambda step: measured[step])
    assert step < EPOCHS * STEPS, "the setting must overfit for this test to say anything"
    *before, result = chosen.of("ftjob-1", Checkpointed)
    (then,) = [one for one in before if one.step == step]
    assert result.last and result.step == step and result.metrics == then.metrics
    assert bits(result) == bits(then)
    assert result.agreement and before[-1].step == EPOCHS * STEPS and not before[-1].last
    assert bits(before[-1]) == bits(plain.of("ftjob-1", Checkpointed)[-1])
    assert result.chosen is not None
    assert (result.chosen.best_step, result.chosen.best_value, result.chosen.stopped) == (step, measured[step], False)


def test_a_job_that_no_longer_improves_ends_early_and_says_by_what(base: LoadedBase, tmp_path: Path) -> None:
    script = trained(base, tmp_path / "stopping", STOPPING)
    result = script.of("ftjob-1", Checkpointed)[-1]
    measured = losses(script)
    ended = max(measured)
    assert ended < EPOCHS * STEPS
    assert result.chosen is not None and result.chosen.stopped
    assert result.chosen.ended_step == ended == script.of("ftjob-1", Stepped)[-1].step
    assert result.chosen.without_improvement == 2
    assert result.step == min(measured, key=lambda step: measured[step]) == ended - 2 * STEPS


def test_the_decision_is_the_same_from_every_snapshot_on(base: LoadedBase, tmp_path: Path) -> None:
    whole = trained(base, tmp_path / "whole", STOPPING).of("ftjob-1", Checkpointed)[-1]
    assert whole.chosen is not None
    slot = seat(base, tuning=STEADY, n_epochs=EPOCHS, learning_rate=3e-2, safeguards=STOPPING)
    while slot.phase is Phase.PREPARE:
        slot.prepare()
    slot.snapshot().write(tmp_path / "snapshot-0")
    while not slot.finished:
        slot.train_step()
        slot.snapshot().write(tmp_path / f"snapshot-{slot.step}")
    slot.leave()
    for step in (0, whole.step, whole.chosen.ended_step - 1):
        again = trained(base, tmp_path / f"from-{step}", STOPPING, resume=tmp_path / f"snapshot-{step}")
        result = again.of("ftjob-1", Checkpointed)[-1]
        assert bits(result) == bits(whole), step
        assert result.model_copy(update={"folder": ""}) == whole.model_copy(update={"folder": ""}), step


def test_a_job_without_safeguards_stores_and_reports_nothing_of_them(base: LoadedBase, tmp_path: Path) -> None:
    slot = seat(base)
    run(slot)
    slot.snapshot().write(tmp_path / "snapshot")
    assert not [name for name in load_file(tmp_path / "snapshot" / "state.safetensors") if name.startswith("best/")]
    assert slot.chosen() is None and slot.forgetting() is None
    slot.leave()


def test_measuring_what_is_forgotten_changes_no_bit_of_the_training(base: LoadedBase, tmp_path: Path) -> None:
    expected = None
    for asked in (False, True):
        slot = seat(base, safeguards=Safeguards(forgetting_report=asked))
        while slot.phase is Phase.PREPARE:
            assert slot.prepare() > 0
        run(slot)
        report = slot.forgetting()
        assert (report is not None) is asked
        found = adapter(slot, tmp_path / str(asked))
        slot.leave()
        assert expected in (None, found)
        expected = found


@pytest.mark.parametrize("tuning", [LORA, PROMPT], ids=["lora", "prompt"])
def test_the_report_compares_with_what_the_job_started_from(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    """With a learning rate of zero nothing is forgotten since the start; the base is where a first job starts."""
    asked = Safeguards(forgetting_report=True)
    parent = seat(base, "parent", tuning, learning_rate=3e-1, safeguards=asked)
    parent.prepare()
    run(parent)
    first = parent.forgetting()
    adapter(parent, tmp_path / "parent")
    parent.leave()
    child = seat(base, "child", tuning, learning_rate=0.0, safeguards=asked)
    child.continue_from(tmp_path / "parent")
    child.prepare()
    run(child)
    second = child.forgetting()
    child.leave()
    assert first is not None and second is not None
    assert first.loss_after != first.loss_before
    assert second.loss_before == second.loss_after == first.loss_after
    assert first.loss_before == pytest.approx(base_loss(base), rel=1e-5)
    assert first.tokens == second.tokens > 100


def base_loss(base: LoadedBase) -> float:
    """The general text's loss by transformers' own loss, piece by piece as the trainer cuts it."""
    total, count = 0.0, 0
    for passage in general_text():
        ids = base.text.tokenizer(passage)["input_ids"]
        for begin in range(0, len(ids), 256):
            piece = torch.tensor([ids[begin : begin + 256]])
            if piece.shape[1] > 1:
                with torch.no_grad():
                    total += float(base.model(input_ids=piece, labels=piece).loss) * (piece.shape[1] - 1)
                count += piece.shape[1] - 1
    assert math.isfinite(total)
    return total / count
