"""The supervised objective: its closed value, its mask, and what a step's micro-batches add up to."""

import math

import pytest
import torch
from torch import Tensor

from service.recipes.objective import OBJECTIVES
from service.recipes.objectives.supervised import SupervisedSettings
from service.recipes.tuning import tuning_of
from tests.given.tiny_models import VOCABULARY, Saying, make_tiny_base, random_rows, rows_of
from workers.data.batches import IGNORED, Batch, collate
from workers.model.load import LoadedBase, load_base
from workers.objectives import create_objective
from workers.trainer.process.passes import Passes
from workers.tunings import Tuning, create_tuning

SUPERVISED = create_objective(SupervisedSettings())
ROWS = random_rows(8, shortest=6, longest=24)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


def whole_batch() -> Batch:
    return collate(ROWS, range(8), pad_id=0)


def test_every_objective_that_the_service_offers_is_implemented() -> None:
    for objective in OBJECTIVES:
        settings = objective(**{name: rule.value(10) for name, rule in objective.auto.items()})
        assert create_objective(settings).count(whole_batch()) > 0


def test_a_uniform_model_has_the_loss_log_of_the_vocabulary() -> None:
    batch = whole_batch()
    loss = SUPERVISED.loss(Saying(torch.zeros(*batch.input_ids_BT.shape, VOCABULARY)), batch)
    num_tokens = SUPERVISED.count(batch)
    assert num_tokens == int(ROWS.trained.sum())
    assert float(loss.total) / num_tokens == pytest.approx(math.log(VOCABULARY), rel=1e-6)


def test_a_model_that_knows_every_next_token_is_right_everywhere() -> None:
    batch = whole_batch()
    logits_BTV = torch.zeros(*batch.input_ids_BT.shape, VOCABULARY)
    logits_BTV[:, :-1].scatter_(2, batch.input_ids_BT[:, 1:, None], 50.0)
    loss = SUPERVISED.loss(Saying(logits_BTV), batch)
    assert int(loss.sums["mean_token_accuracy"]) == SUPERVISED.count(batch)
    assert float(loss.total) == pytest.approx(0.0, abs=1e-3)


def test_tokens_outside_the_mask_have_no_gradient() -> None:
    batch = whole_batch()
    logits_BTV = torch.randn(*batch.input_ids_BT.shape, VOCABULARY, requires_grad=True)
    SUPERVISED.loss(Saying(logits_BTV), batch).total.backward()
    assert logits_BTV.grad is not None
    moved_BT = logits_BTV.grad.abs().sum(dim=2) > 0
    trained_BT = batch.labels_BT != IGNORED
    assert torch.equal(moved_BT[:, :-1], trained_BT[:, 1:])  # the logits before a trained token, and no others
    assert not moved_BT[:, -1].any()


def test_the_first_token_of_a_row_never_trains() -> None:
    batch = collate(rows_of([[7]]), [0], pad_id=0)
    loss = SUPERVISED.loss(Saying(torch.zeros(1, 1, VOCABULARY)), batch)
    assert batch.labels_BT.tolist() == [[7]]
    assert (SUPERVISED.count(batch), float(loss.total)) == (0, 0.0)


def test_it_is_the_loss_that_transformers_computes(base: LoadedBase) -> None:
    batch = whole_batch()
    with torch.no_grad():
        theirs = base.model(batch.input_ids_BT, attention_mask=batch.attention_mask_BT, labels=batch.labels_BT).loss
    tuning = attached(base, "lora")
    ours = passes(base, tuning).measure(ROWS, range(8))
    tuning.detach()
    assert ours.loss == pytest.approx(float(theirs), rel=1e-6)
    assert ours.cost_tokens == ROWS.num_tokens


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_micro_batches_add_up_to_the_gradient_of_the_whole_step(base: LoadedBase, kind: str) -> None:
    tuning = attached(base, kind)
    tuning.activate()
    together = gradient(base, tuning, [list(range(8))])
    apart = gradient(base, tuning, [[0], [1, 2, 3], [4, 5], [6, 7]])
    tuning.detach()
    assert torch.allclose(together, apart, rtol=1e-4, atol=1e-6)


def passes(base: LoadedBase, tuning: Tuning) -> Passes:
    return Passes(base, tuning, SUPERVISED)


def attached(base: LoadedBase, kind: str) -> Tuning:
    settings = {
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"},
        "prompt": {"num_virtual_tokens": 5},
    }
    torch.manual_seed(0)  # an adapter draws its first weights
    tuning = create_tuning(tuning_of({"type": kind, kind: settings[kind]}), base.model, "one")
    tuning.attach()
    return tuning


def gradient(base: LoadedBase, tuning: Tuning, groups: list[list[int]]) -> Tensor:
    """Of the step's mean loss, cut into these micro-batches, by the formula of `Passes`."""
    num_tokens = int(ROWS.trained.sum())
    for parameter in tuning.parameters().values():
        parameter.grad = None
    for group in groups:
        loss = SUPERVISED.loss(passes(base, tuning), collate(ROWS, group, base.pad_id))
        (loss.total / num_tokens).backward()
    return torch.cat([p.grad.flatten() for p in tuning.parameters().values() if p.grad is not None])
