"""Direct preference optimization, a job: its reference is the base, from which it learns, and never moves."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from service.recipes.recipe import Recipe
from tests.given.recipes import recipe
from tests.given.tiny_models import random_pairs, random_rows
from tests.given.tunings import ELSEWHERE, KINDS
from workers.data.tokenized import TokenizedDataset
from workers.model.load import LoadedBase, environment
from workers.trainer.process.slot import Phase, Slot
from workers.trainer.protocol import JobSpec

pytestmark = pytest.mark.slow

LOG_2 = math.log(2)
BETA = 0.3
LORA = {"type": "lora", "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}}
PROMPT = {"type": "prompt", "prompt": {"num_virtual_tokens": 5}}
TRAIN, VALID = random_pairs(10, seed=1), random_pairs(5, seed=2)
every_tuning = pytest.mark.parametrize("tuning", [LORA, PROMPT], ids=["lora", "prompt"])


def seat(
    base: LoadedBase,
    tuning: dict[str, Any] = LORA,
    *,
    train: TokenizedDataset = TRAIN,
    valid: TokenizedDataset | None = VALID,
    method: Recipe | None = None,
    **changes: Any,
) -> Slot:
    values: dict[str, Any] = {
        "n_epochs": 2, "batch_size": 3, "learning_rate": 1e-2, "seed": 7, "snapshot_steps": 100,
    }  # fmt: skip
    spec = JobSpec(job_id="ftjob-1", recipe=method or recipe(tuning, "dpo", beta=BETA), **values | changes)
    return Slot(base, environment(base.device), spec, train, valid)


def prepared(slot: Slot) -> Slot:
    while slot.phase is Phase.PREPARE:
        slot.prepare()
    return slot


def run(slot: Slot) -> list[dict[str, float]]:
    """Trains to the end."""
    metrics = []
    prepared(slot)
    while not slot.finished:
        metrics.append(slot.train_step().metrics)
    return metrics


@torch.no_grad()
def plain_logprob(base: LoadedBase, tokens: NDArray[np.int32], trained: NDArray[np.uint8]) -> float:
    """Of a row's trained tokens, by transformers alone."""
    ids_T = torch.from_numpy(tokens.astype(np.int64))
    logprobs_TV = base.model(input_ids=ids_T[None]).logits[0, :-1].double().log_softmax(dim=-1)
    of_tokens_T = logprobs_TV.gather(1, ids_T[1:, None])[:, 0]
    return float((of_tokens_T * torch.from_numpy(trained[1:])).sum())


def adapter(slot: Slot, folder: Path) -> bytes:
    slot.save_adapter(folder)
    return (folder / "adapter_model.safetensors").read_bytes()


def test_the_first_steps_loss_is_log_2_and_nothing_is_preferred_yet(base: LoadedBase) -> None:
    slot = prepared(seat(base))
    first = slot.train_step().metrics
    slot.leave()
    assert first["train_loss"] == pytest.approx(LOG_2, abs=1e-12)
    assert (first["train_accuracy"], first["train_reward_margin"]) == (0.0, 0.0)
    assert (first["train_rewards_chosen"], first["train_rewards_rejected"]) == (0.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_of_a_new_adapter_is_the_base_whatever_it_begins_with(
    base: LoadedBase, kind: str, tmp_path: Path
) -> None:
    """Of `prompt` and `prefix`, too, which put something before the rows: beta is the price of leaving the base."""
    slot = prepared(seat(base, KINDS[kind]))
    slot.snapshot().write(tmp_path / "snapshot")
    found = load_file(tmp_path / "snapshot" / "state.safetensors")
    first = slot.train_step().metrics["train_loss"]
    slot.leave()
    for name, rows in (("train", TRAIN), ("valid", VALID)):
        expected = [plain_logprob(base, *rows.row(row)) for row in range(len(rows))]
        assert found[f"reference/{name}"].tolist() == pytest.approx(expected, abs=1e-3)
    if kind in ELSEWHERE:
        assert abs(first - LOG_2) > 1e-2
    elif kind != "pissa":  # whose dropout falls on what it takes from the base's weights
        assert first == pytest.approx(LOG_2, abs=1e-4)


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
def test_it_learns_eight_preferences(base: LoadedBase, tuning: dict[str, Any]) -> None:
    rate = {"lora": 1e-2, "prompt": 1e-1}[tuning["type"]]
    slot = seat(base, tuning, train=random_pairs(8, seed=3), valid=None, n_epochs=30, batch_size=8, learning_rate=rate)
    metrics = run(slot)
    slot.leave()
    margins = [one["train_reward_margin"] for one in metrics]
    assert margins[0] < margins[5] < margins[-1]
    assert tuning == PROMPT or margins[0] == 0.0
    assert metrics[-1]["train_accuracy"] == 1.0
    assert metrics[-1]["train_loss"] < 0.5 * LOG_2


def test_beta_decides_how_much_a_reward_is(base: LoadedBase) -> None:
    margins = []
    for beta in (0.1, 0.2):
        slot = prepared(seat(base, method=recipe(LORA, "dpo", beta=beta), n_epochs=1, batch_size=5))
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
        slot.snapshot().write(tmp_path / f"snapshot-{step}")
        metrics.append(slot.train_step().metrics)
    expected = adapter(slot, tmp_path / "undisturbed")
    slot.leave()
    for step in (0, 1, 4, 7):
        again = seat(base, tuning)
        assert again.restore(tmp_path / f"snapshot-{step}") == ""
        assert again.phase is Phase.UPDATE  # its reference is the one that was stored
        assert run(again) == metrics[step:]
        assert adapter(again, tmp_path / f"resumed-{step}") == expected
        again.leave()


def test_the_reference_in_every_snapshot_is_the_same(base: LoadedBase, tmp_path: Path) -> None:
    slot = prepared(seat(base))
    found = []
    for step in range(3):
        slot.snapshot().write(tmp_path / str(step))
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
    assert slot.phase is Phase.PREPARE
    slot.snapshot().write(tmp_path / "early")
    slot.leave()
    again = seat(base)
    again.restore(tmp_path / "early")
    assert again.phase is Phase.PREPARE
    assert run(again) == expected
    again.leave()


def test_the_reference_is_made_in_turns_of_a_step_and_leaves_neighbours_alone(base: LoadedBase) -> None:
    spec = {"method": recipe(PROMPT), "train": random_rows(6), "valid": None}
    alone = seat(base, **spec)
    assert alone.phase is Phase.UPDATE
    expected = run(alone)
    alone.leave()
    neighbour, slot = seat(base, **spec), seat(base, {"type": "lora", "lora": {**LORA["lora"], "dropout": 0.5}})
    costs, metrics = [], []
    while slot.phase is Phase.PREPARE:
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
        prepared(slot).snapshot().write(tmp_path / f"{dropout}")
        references.append(load_file(tmp_path / f"{dropout}/state.safetensors")["reference/train"])
        losses.append(slot.train_step().metrics["train_loss"])
        slot.leave()
    assert torch.equal(*references)
    assert losses[0] == pytest.approx(LOG_2, abs=1e-12) and abs(losses[1] - LOG_2) > 1e-4


def test_a_snapshot_of_an_earlier_version_is_continued(base: LoadedBase) -> None:
    """Written by the code before tokenised files had columns and objectives parameters, after one of two steps."""
    earlier = Path(__file__).parents[2] / "given" / "upgrades"
    rows = TokenizedDataset.load(earlier / "pairs.safetensors")
    tuning = {"type": "prompt", "prompt": {"num_virtual_tokens": 2}}
    slot = seat(base, tuning, n_epochs=1, batch_size=1, train=rows, valid=None)
    assert slot.phase is Phase.PREPARE
    slot.restore(earlier / "snapshot")
    assert slot.phase is Phase.UPDATE and slot.step == 1
    slot.train_step()
    assert slot.finished and slot.trained_tokens == rows.num_tokens
    slot.leave()
