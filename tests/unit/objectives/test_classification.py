"""Classification: closed values, weights, both kinds of base, F1 by hand; and a job in a slot, bit for bit."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from service.domain.errors import JobError
from service.recipes.objectives.classification import ClassificationSettings
from service.recipes.recipe import Recipe
from service.recipes.tuning import tuning_of
from tests.given.encoders import ENCODERS, labelled_rows, make_tiny_encoder
from tests.given.slots import LORA, run
from tests.given.tiny_models import make_tiny_base
from workers.data.batches import collate
from workers.data.tokenized import TokenizedDataset
from workers.model.head import HEAD, read_head
from workers.model.load import LoadedBase, environment, load_base
from workers.objectives import TokenLosses, create_objective
from workers.objectives.classification import CONFUSION, Classification
from workers.trainer.process.slot import Slot
from workers.trainer.protocol import JobSpec

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
ROWS, VALID = labelled_rows(36), labelled_rows(18, seed=1)
SEVERAL = labelled_rows(36, several=True)


@pytest.fixture(scope="module", params=["llama", *ENCODERS])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    folder = tmp_path_factory.mktemp("base")
    entry = make_tiny_base(folder) if request.param == "llama" else make_tiny_encoder(folder, request.param)
    return load_base(entry, CPU)


def seat(
    base: LoadedBase,
    train: TokenizedDataset = ROWS,
    valid: TokenizedDataset | None = VALID,
    tuning: dict[str, Any] = LORA,
    epochs: int = 4,
    **settings: Any,
) -> Slot:
    recipe = Recipe(objective=ClassificationSettings(**settings), tuning=tuning_of(tuning), task="classify")
    spec = JobSpec(
        job_id="ftjob-1", recipe=recipe, n_epochs=epochs, batch_size=6, learning_rate=1e-2, seed=7, snapshot_steps=100
    )
    return Slot(base, environment(base.device), spec, train, valid)


def prepared(settings: ClassificationSettings, rows: TokenizedDataset, hidden_size: int = 8) -> Classification:
    objective = create_objective(settings)
    assert isinstance(objective, Classification)
    objective.prepare(rows, "causal")
    objective.attach(hidden_size, CPU)
    return objective


class States:
    """A base that says these states whatever it reads."""

    def __init__(self, hidden_BTH: torch.Tensor) -> None:
        self._hidden_BTH = hidden_BTH

    def hidden(self, batch: Any) -> torch.Tensor:
        return self._hidden_BTH

    def token_losses(self, batch: Any) -> TokenLosses:
        raise NotImplementedError("it has no output layer")

    def logits(self, batch: Any, keep_K: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("it has no output layer")


@pytest.mark.parametrize(("rows", "expected"), [(ROWS, math.log(3)), (SEVERAL, math.log(2))])
def test_the_first_loss_is_the_logarithm_of_the_number_of_labels(rows: TokenizedDataset, expected: float) -> None:
    objective = prepared(ClassificationSettings(), rows)
    batch = collate(rows, range(6), pad_id=0)
    loss = objective.loss(States(torch.randn(*batch.input_ids_BT.shape, 8)), batch)
    assert loss.total.item() / objective.count(batch) == pytest.approx(expected, rel=1e-6)


def test_loss_and_gradient_are_those_of_torch_with_weights_and_either_kind_of_label() -> None:
    for rows, kind in ((ROWS, "single"), (SEVERAL, "several")):
        weights = {"high": 2.0, "mid": 0.5}
        objective = prepared(ClassificationSettings(class_weights=weights, pooling="mean"), rows)
        batch = collate(rows, range(6), pad_id=0)
        hidden_BTH = torch.randn(*batch.input_ids_BT.shape, 8)
        weight_CH, bias_C = objective.parameters().values()
        with torch.no_grad():
            weight_CH.normal_()
            bias_C.normal_()
        objective.loss(States(hidden_BTH), batch).total.backward()
        mask_BT1 = batch.attention_mask_BT[..., None]
        logits_BC = ((hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)) @ weight_CH.detach().T + bias_C.detach()
        logits_BC.requires_grad_()
        each = torch.tensor([2.0, 1.0, 0.5])
        if kind == "single":
            theirs = cross_entropy(logits_BC, batch.row_labels_B, weight=each, reduction="sum")
        else:
            theirs = 6 * binary_cross_entropy_with_logits(logits_BC, batch.row_label_sets_BC, pos_weight=each)
        theirs.backward()
        assert logits_BC.grad is not None and bias_C.grad is not None
        torch.testing.assert_close(bias_C.grad, logits_BC.grad.sum(0), atol=1e-5, rtol=1e-5)
        loss = objective.loss(States(hidden_BTH), batch)
        assert loss.total.item() == pytest.approx(theirs.item(), abs=1e-5)


def test_balanced_weights_count_every_label_as_much_as_the_others() -> None:
    rare = replace(ROWS, row_labels=np.array([0] * 27 + [1] * 6 + [2] * 3))
    objective = prepared(ClassificationSettings(class_weights="balanced"), rare)
    assert objective._weights_C.tolist() == pytest.approx([36 / (3 * 27), 36 / (3 * 6), 36 / (3 * 3)])


def test_the_last_token_is_the_last_that_is_no_padding() -> None:
    objective = prepared(ClassificationSettings(), ROWS)
    batch = collate(ROWS, range(6), pad_id=0)
    lengths_B = batch.attention_mask_BT.sum(1)
    assert len(set(lengths_B.tolist())) > 1
    hidden_BTH = torch.zeros(*batch.input_ids_BT.shape, 8)
    for row, length in enumerate(lengths_B):
        hidden_BTH[row, length - 1] = row + 1.0
    with torch.no_grad():
        objective.parameters()["weight"].fill_(1 / 8)
    logits_BC = objective.logits(States(hidden_BTH), batch)
    assert logits_BC[:, 0].tolist() == pytest.approx([1, 2, 3, 4, 5, 6])


def test_f1_and_confusion_are_those_worked_out_by_hand() -> None:
    six = replace(labelled_rows(6), row_labels=np.array([0, 0, 0, 1, 1, 2]))
    guesses = [torch.tensor(guess) for guess in (0, 0, 1, 1, 0, 0)]
    evaluation = prepared(ClassificationSettings(), six).evaluate(six, guesses)
    # high: 2 TP, 2 FP, 1 FN: 4/7. low: 1 TP, 1 FP, 1 FN: 1/2. mid: nothing is right: 0.
    assert evaluation.metrics["macro_f1"] == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)
    table = list(csv.reader(io.StringIO(evaluation.tables[CONFUSION])))
    assert table == [
        ["label \\ predicted", "high", "low", "mid"],
        ["high", "2", "1", "0"],
        ["low", "1", "1", "0"],
        ["mid", "1", "0", "0"],
    ]


def test_f1_and_confusion_of_several_labels_are_those_worked_out_by_hand() -> None:
    truths = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], np.uint8)
    four = replace(labelled_rows(4, several=True), row_label_sets=truths)
    guesses = [torch.tensor(row) for row in ([True, True, False], [False, True, False], [False] * 3, [False] * 3)]
    evaluation = prepared(ClassificationSettings(), four).evaluate(four, guesses)
    # high: 1 TP, 1 FN: 2/3. low: 1 TP, 1 FP, 1 FN: 1/2. mid: neither true nor predicted: 0.
    assert evaluation.metrics["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    table = list(csv.reader(io.StringIO(evaluation.tables[CONFUSION])))
    assert table[1:] == [["high", "1", "0", "1", "2"], ["low", "1", "1", "1", "1"], ["mid", "0", "0", "0", "4"]]


@pytest.mark.parametrize("rows", [ROWS, SEVERAL], ids=["one", "several"])
def test_a_job_learns_its_rows_leaves_the_base_alone_and_saves_its_head(
    base: LoadedBase, rows: TokenizedDataset, tmp_path: Path
) -> None:
    slot = seat(base, rows, rows, epochs=14)
    metrics = run(slot)
    assert metrics[0]["train_loss"] == pytest.approx(math.log(2 if rows is SEVERAL else 3), rel=1e-5)
    assert metrics[-1]["full_valid_accuracy"] > 0.9 and metrics[-1]["full_valid_macro_f1"] > 0.9
    slot.save_adapter(tmp_path / "saved", slot.tables())
    row = slot.head_rows()[0]
    slot.leave()
    assert slot.agreement_rows() == []
    head = read_head(tmp_path / "saved", 32, CPU)
    assert head is not None and head.config.labels == list(rows.labels)
    assert head.config.pooling == ("last" if base.kind == "causal" else "mean")
    assert (tmp_path / "saved" / CONFUSION).exists()
    assert row.values != pytest.approx(row.base_values, abs=1e-3)
    assert sum(row.values) == pytest.approx(1.0) or rows is SEVERAL


def test_a_job_resumed_at_any_step_ends_in_the_same_bits(base: LoadedBase, tmp_path: Path) -> None:
    slot, metrics = seat(base, epochs=1, class_weights="balanced"), []
    for step in range(slot.total_steps):
        slot.snapshot().write(tmp_path / f"snapshot-{step}")
        metrics.append(slot.train_step().metrics)
    slot.save_adapter(tmp_path / "whole", slot.tables())
    slot.leave()
    for step in (0, 3):
        again = seat(base, epochs=1, class_weights="balanced")
        assert again.restore(tmp_path / f"snapshot-{step}") == ""
        assert run(again) == metrics[step:]
        again.save_adapter(tmp_path / f"again-{step}", again.tables())
        again.leave()
        for file in (tmp_path / "whole").iterdir():
            assert file.read_bytes() == (tmp_path / f"again-{step}" / file.name).read_bytes(), file.name


def test_a_model_is_continued_with_its_own_labels_only(base: LoadedBase, tmp_path: Path) -> None:
    parent = seat(base, epochs=1)
    run(parent)
    parent.save_adapter(tmp_path / "parent")
    parent.leave()
    same = seat(base)
    same.continue_from(tmp_path / "parent")
    same.save_adapter(tmp_path / "same")
    same.leave()
    assert (tmp_path / "same" / HEAD).read_bytes() == (tmp_path / "parent" / HEAD).read_bytes()
    other = seat(base, replace(ROWS, labels=("high", "low", "new")), None)
    with pytest.raises(JobError, match=r"its labels are 3 \(high, low, mid\), those of the training file 3"):
        other.continue_from(tmp_path / "parent")
    other.leave()
