"""Direct preference optimization: its closed value, its gradient, its mask, and that its reference never moves."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.tiny_models import VOCABULARY, make_tiny_base, random_pairs, random_rows
from workers.base import LoadedBase, environment, load_base, weights_digest
from workers.data.batches import IGNORED, Batch, collate
from workers.data.tokenized import TokenizedDataset
from workers.objectives import create_objective
from workers.trainer.passes import Passes
from workers.trainer.plan import micro_batches
from workers.trainer.protocol import JobSpec
from workers.trainer.slot import Slot
from workers.tunings import Tuning, create_tuning

LOG_2 = math.log(2)
BETA = 0.3
LORA = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}}
PROMPT = {"type": "prompt", "prompt": {"num_virtual_tokens": 5}}
TRAIN, VALID = random_pairs(10, seed=1), random_pairs(5, seed=2)
every_tuning = pytest.mark.parametrize("tuning", [LORA, PROMPT], ids=["lora", "prompt"])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load_base(make_tiny_base(tmp_path_factory.mktemp("base")), torch.device("cpu"))


@pytest.fixture
def base(loaded: LoadedBase) -> Iterator[LoadedBase]:
    """The base; once the jobs of a test have left, it is what it was."""
    yield loaded
    assert weights_digest(loaded.model) == loaded.hashes["weights"]


def seat(
    base: LoadedBase,
    tuning: dict[str, Any] = LORA,
    *,
    train: TokenizedDataset = TRAIN,
    valid: TokenizedDataset | None = VALID,
    **changes: Any,
) -> Slot:
    values: dict[str, Any] = {
        "n_epochs": 2, "batch_size": 3, "learning_rate": 1e-2, "seed": 7, "snapshot_steps": 100,
        "objective": "dpo", "objective_settings": {"beta": BETA},
    }  # fmt: skip
    spec = JobSpec(job_id="ftjob-1", tuning=tuning, **values | changes)
    return Slot(base, environment(base.device), spec, train, valid)


def prepared(slot: Slot) -> Slot:
    while not slot.prepared:
        slot.prepare()
    return slot


def run(slot: Slot) -> list[dict[str, float]]:
    """Trains to the end."""
    metrics = []
    prepared(slot)
    while not slot.finished:
        metrics.append(slot.train_step().metrics)
    return metrics


def adapter(slot: Slot, folder: Path) -> bytes:
    slot.save_adapter(folder)
    return (folder / "adapter_model.safetensors").read_bytes()


@every_tuning
def test_the_first_steps_loss_is_log_2_and_nothing_is_preferred_yet(base: LoadedBase, tuning: dict[str, Any]) -> None:
    slot = prepared(seat(base, tuning))
    first = slot.train_step().metrics
    slot.leave()
    assert first["train_loss"] == pytest.approx(LOG_2, abs=1e-12)
    assert (first["train_accuracy"], first["train_reward_margin"]) == (0.0, 0.0)
    assert (first["train_rewards_chosen"], first["train_rewards_rejected"]) == (0.0, 0.0)


@every_tuning
def test_a_job_that_goes_on_from_a_tuned_model_takes_that_model_for_its_reference(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    parent = seat(base, tuning, learning_rate=5e-2)
    assert abs(run(parent)[-1]["train_loss"] - LOG_2) > 0.1
    adapter(parent, tmp_path / "parent")
    parent.leave()
    child = seat(base, tuning)
    child.continue_from(tmp_path / "parent")
    assert run(child)[0]["train_loss"] == pytest.approx(LOG_2, abs=1e-12)
    child.leave()


def test_validation_starts_from_log_2_as_well(base: LoadedBase) -> None:
    slot = prepared(seat(base, learning_rate=0.0, batch_size=10))
    metrics = slot.train_step().metrics
    slot.leave()
    assert metrics["valid_loss"] == pytest.approx(LOG_2, abs=1e-5)
    assert metrics["full_valid_loss"] == pytest.approx(LOG_2, abs=1e-5)


def test_metrics_tell_rewards_and_no_token_accuracy_and_both_sequences_are_trained_tokens(base: LoadedBase) -> None:
    slot = seat(base)
    metrics = run(slot)
    slot.leave()
    told = ["loss", "accuracy", "reward_margin", "rewards_chosen", "rewards_rejected"]
    always = {"step", "total_steps"} | {f"{which}_{name}" for which in ("train", "valid") for name in told}
    full = {f"full_valid_{name}" for name in told}
    assert [set(one) for one in metrics] == ([always] * 3 + [always | full]) * 2
    assert slot.total_steps == 8 and slot.trained_tokens == 2 * TRAIN.num_tokens
    last = metrics[-1]
    margin = last["train_rewards_chosen"] - last["train_rewards_rejected"]
    assert last["train_reward_margin"] == pytest.approx(margin)


@every_tuning
def test_the_gradient_is_that_of_the_papers_formula(base: LoadedBase, tuning: dict[str, Any]) -> None:
    one = attached(base, tuning)
    passes = Passes(base, one, create_objective("dpo", {"beta": BETA}))
    one.activate()
    reference_N = reference(passes, TRAIN)
    disturb(one)
    expected_loss = plain_loss(base, one, TRAIN, reference_N)
    expected_loss.backward()
    expected = gradient(one)
    for parameter in one.parameters().values():
        parameter.grad = None
    measured = passes.train(TRAIN, range(10), reference_N)
    found = gradient(one)
    one.detach()
    assert measured.loss == pytest.approx(float(expected_loss.detach()), abs=1e-6)
    assert float(expected.abs().max()) > 1e-3
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_micro_batches_weigh_by_pairs(base: LoadedBase) -> None:
    one = attached(base, LORA)
    objective = create_objective("dpo", {"beta": BETA})
    passes = Passes(base, one, objective)
    one.activate()
    reference_N = reference(passes, TRAIN)
    disturb(one)
    passes.train(TRAIN, range(10), reference_N)
    together = gradient(one)
    for parameter in one.parameters().values():
        parameter.grad = None
    for pairs in ([0], [1, 2, 3, 4, 5], [6, 7], [8, 9]):
        rows = TRAIN.rows_of(pairs)
        batch = collate(TRAIN, rows, base.pad_id)
        with_reference = Batch(batch.input_ids_BT, batch.attention_mask_BT, batch.labels_BT, reference_N[rows])
        assert objective.count(with_reference) == len(pairs)
        (objective.loss(passes.logits, with_reference).total / 10).backward()  # type: ignore[no-untyped-call]
    apart = gradient(one)
    one.detach()
    assert torch.allclose(together, apart, rtol=1e-4, atol=1e-6)


def test_a_plan_never_parts_a_pair() -> None:
    groups = micro_batches(range(5), [10, 30, 10, 20, 30], rows_per_example=2, limit_tokens=80)
    assert groups == [[1], [4], [3, 0], [2]]
    assert TRAIN.rows_of(groups[2]) == [6, 7, 0, 1]


def test_only_the_answers_have_a_gradient() -> None:
    rows = TRAIN.rows_of(range(4))
    batch = collate(TRAIN, rows, pad_id=0)
    batch = Batch(batch.input_ids_BT, batch.attention_mask_BT, batch.labels_BT, torch.zeros(8, dtype=torch.float64))
    logits_BTV = torch.randn(*batch.input_ids_BT.shape, VOCABULARY, requires_grad=True)
    loss = create_objective("dpo", {"beta": 0.1}).loss(lambda ids, mask, keep_K: logits_BTV[:, keep_K], batch)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert logits_BTV.grad is not None
    moved_BT = logits_BTV.grad.abs().sum(dim=2) > 0
    assert torch.equal(moved_BT[:, :-1], (batch.labels_BT != IGNORED)[:, 1:])
    assert not moved_BT[:, -1].any()


@every_tuning
def test_it_learns_eight_preferences(base: LoadedBase, tuning: dict[str, Any]) -> None:
    rate = {"lora": 1e-2, "prompt": 1e-1}[tuning["type"]]
    slot = seat(base, tuning, train=random_pairs(8, seed=3), valid=None, n_epochs=30, batch_size=8, learning_rate=rate)
    metrics = run(slot)
    slot.leave()
    margins = [one["train_reward_margin"] for one in metrics]
    assert margins[0] == 0.0 < margins[5] < margins[-1]
    assert metrics[-1]["train_accuracy"] == 1.0
    assert metrics[-1]["train_loss"] < 0.5 * LOG_2


def test_it_is_not_supervised_training(base: LoadedBase) -> None:
    """Supervised training makes both answers likelier; this makes the other answer less likely."""
    changes = {}
    for objective, settings in (("dpo", {"beta": BETA}), ("supervised", {})):
        slot = seat(
            base, valid=None, n_epochs=10, batch_size=10, objective=objective, objective_settings=settings
        )  # fmt: skip
        passes = slot._passes
        with slot._working():
            before_N = reference(passes, TRAIN)
        run(slot)
        with slot._working():
            changes[objective] = (reference(passes, TRAIN) - before_N)[1::2].mean()
        slot.leave()
    assert changes["dpo"] < 0 < changes["supervised"]


def test_beta_decides_how_much_a_reward_is(base: LoadedBase) -> None:
    margins = []
    for beta in (0.1, 0.2):
        slot = prepared(seat(base, objective_settings={"beta": beta}, n_epochs=1, batch_size=5))
        slot.train_step()
        margins.append(slot.train_step().metrics["train_reward_margin"])
        slot.leave()
    assert margins[1] != margins[0] != 0


@every_tuning
def test_a_job_resumed_at_any_step_ends_in_the_same_bits(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    slot = prepared(seat(base, tuning))
    metrics = []
    for step in range(slot.total_steps):
        slot.snapshot(tmp_path / f"snapshot-{step}")
        metrics.append(slot.train_step().metrics)
    expected = adapter(slot, tmp_path / "undisturbed")
    slot.leave()
    for step in (0, 1, 4, 7):
        again = seat(base, tuning)
        assert again.restore(tmp_path / f"snapshot-{step}") == ""
        assert again.prepared  # its reference is the one that was stored
        assert run(again) == metrics[step:]
        assert adapter(again, tmp_path / f"resumed-{step}") == expected
        again.leave()


def test_the_reference_in_every_snapshot_is_the_same(base: LoadedBase, tmp_path: Path) -> None:
    slot = prepared(seat(base))
    found = []
    for step in range(3):
        slot.snapshot(tmp_path / str(step))
        tensors = load_file(tmp_path / str(step) / "state.safetensors")
        found.append((tensors["reference/train"], tensors["reference/valid"]))
        slot.train_step()
    slot.leave()
    assert found[0][0].shape == (20,) and found[0][1].shape == (10,)
    assert all(torch.equal(a, b) for later in found[1:] for a, b in zip(found[0], later, strict=True))
    assert (found[0][0] < 0).all()


def test_a_job_that_leaves_before_its_reference_is_complete_makes_it_again(base: LoadedBase, tmp_path: Path) -> None:
    slot = seat(base)
    expected = run(slot)
    slot.leave()
    slot = seat(base)
    slot.prepare()
    assert not slot.prepared
    slot.snapshot(tmp_path / "early")
    slot.leave()
    again = seat(base)
    again.restore(tmp_path / "early")
    assert not again.prepared
    assert run(again) == expected
    again.leave()


def test_the_reference_is_made_in_turns_of_a_step_and_leaves_neighbours_alone(base: LoadedBase) -> None:
    spec = {"objective": "supervised", "objective_settings": {}, "train": random_rows(6), "valid": None}
    alone = seat(base, PROMPT, **spec)
    assert alone.prepared
    expected = run(alone)
    alone.leave()
    neighbour, slot = seat(base, PROMPT, **spec), seat(base, {"type": "lora", "lora": {**LORA["lora"], "dropout": 0.5}})
    costs, metrics = [], []
    while not slot.prepared:
        costs.append(slot.prepare())
        if not neighbour.finished:
            metrics.append(neighbour.train_step().metrics)
    neighbour.leave()
    slot.leave()
    assert metrics == expected
    assert len(costs) == 4 + 2 and sum(costs) == TRAIN.num_tokens + VALID.num_tokens


def test_dropout_is_the_policys_alone(base: LoadedBase, tmp_path: Path) -> None:
    parent = seat(base, learning_rate=5e-2)
    run(parent)
    adapter(parent, tmp_path / "parent")
    parent.leave()
    references, losses = [], []
    for dropout in (0.0, 0.5):
        slot = seat(base, {"type": "lora", "lora": {**LORA["lora"], "dropout": dropout}})
        slot.continue_from(tmp_path / "parent")
        prepared(slot).snapshot(tmp_path / f"{dropout}")
        references.append(load_file(tmp_path / f"{dropout}/state.safetensors")["reference/train"])
        losses.append(slot.train_step().metrics["train_loss"])
        slot.leave()
    assert torch.equal(*references)
    assert losses[0] == pytest.approx(LOG_2, abs=1e-12) and abs(losses[1] - LOG_2) > 1e-4


def attached(base: LoadedBase, spec: dict[str, Any]) -> Tuning:
    tuning = create_tuning(spec, base.model, "one")
    tuning.attach()
    return tuning


def disturb(tuning: Tuning) -> None:
    """Moves the policy away from its reference."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)


def reference(passes: Passes, dataset: TokenizedDataset) -> Tensor:
    found = passes.logprobs(dataset, range(dataset.num_examples))
    return torch.tensor([found[row] for row in range(len(dataset))], dtype=torch.float64)


def plain_loss(base: LoadedBase, tuning: Tuning, dataset: TokenizedDataset, reference_N: Tensor) -> Tensor:
    """-log(1 / (1 + exp(-beta ((log pi(y_w) - ref_w) - (log pi(y_l) - ref_l))))), row by row, mean over pairs."""
    ratios = []
    for row in range(len(dataset)):
        tokens, trained = (torch.from_numpy(array.astype("int64")) for array in dataset.row(row))
        inputs = tuning.inputs(tokens[None], torch.ones_like(tokens)[None])
        logits_TV = base.model(**inputs).logits[0, tuning.num_virtual_tokens :]
        logprobs_T = torch.log_softmax(logits_TV[:-1].double(), dim=1).gather(1, tokens[1:, None])[:, 0]
        ratios.append((logprobs_T * trained[1:]).sum() - reference_N[row])
    ratio_P = torch.stack(ratios[0::2]) - torch.stack(ratios[1::2])
    return torch.log(1 + torch.exp(-BETA * ratio_P)).mean()


def gradient(tuning: Tuning) -> Tensor:
    return torch.cat([p.grad.flatten().clone() for p in tuning.parameters().values() if p.grad is not None])
