"""One job's place: its steps, its metrics, its exact continuation, and what its neighbours cannot do to it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from service.domain.errors import JobError
from tests.given.recipes import recipe
from tests.given.slots import LORA, PROMPT, TRAIN, VALID, adapter, every_tuning, run, seat
from tests.given.tiny_models import random_rows
from workers.model.load import LoadedBase, environment
from workers.trainer.process.optimizer import learning_rate_factor
from workers.trainer.process.slot import Slot
from workers.trainer.process.turns import Turns
from workers.trainer.protocol import JobSpec


def test_metrics_have_openais_names_and_full_validation_ends_each_epoch(base: LoadedBase) -> None:
    slot = seat(base)
    metrics = run(slot)
    slot.leave()
    always = {"step", "total_steps", "train_loss", "train_mean_token_accuracy"}
    some = {"valid_loss", "valid_mean_token_accuracy"}
    full = {"full_valid_loss", "full_valid_mean_token_accuracy"}
    assert [set(one) for one in metrics] == [always | some] * 3 + [always | some | full] + [always | some] * 3 + [
        always | some | full
    ]
    assert [one["step"] for one in metrics] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert slot.total_steps == 8 and slot.trained_tokens == 2 * TRAIN.num_tokens
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]


def test_long_epochs_are_validated_about_twenty_times(base: LoadedBase) -> None:
    spec = JobSpec(
        job_id="long", recipe=recipe(PROMPT), n_epochs=1, batch_size=1, learning_rate=1e-2, seed=1,
        snapshot_steps=100,
    )  # fmt: skip
    slot = Slot(base, environment(base.device), spec, random_rows(41, longest=8), VALID)
    validated = [one["step"] for one in run(slot) if "valid_loss" in one]
    slot.leave()
    assert validated == [*range(3, 40, 3), 41]


def test_without_a_validation_file_there_are_no_validation_metrics(base: LoadedBase) -> None:
    spec = seat(base)
    spec.leave()
    slot = Slot(base, environment(base.device), spec.spec, TRAIN, None)
    assert not any("valid" in name for one in run(slot) for name in one)
    slot.leave()


@every_tuning
def test_the_seed_decides_every_bit(base: LoadedBase, tuning: dict[str, Any], tmp_path: Path) -> None:
    results = []
    for number, seed in enumerate((7, 7, 8)):
        torch.manual_seed(number)  # whatever the process did before
        slot = seat(base, tuning=tuning, seed=seed)
        metrics = run(slot)
        results.append((metrics, adapter(slot, tmp_path / str(number))))
        slot.leave()
    assert results[0] == results[1]
    assert results[0][1][1] != results[2][1][1]


@every_tuning
def test_a_job_resumed_at_any_step_ends_in_the_same_bits(
    base: LoadedBase, tuning: dict[str, Any], tmp_path: Path
) -> None:
    slot = seat(base, tuning=tuning)
    metrics = []
    for step in range(slot.total_steps):
        slot.snapshot().write(tmp_path / f"snapshot-{step}")
        metrics.append(slot.train_step().metrics)
    expected = adapter(slot, tmp_path / "undisturbed")
    slot.leave()
    for step in (0, 1, 4, 7):
        again = seat(base, tuning=tuning)
        assert again.restore(tmp_path / f"snapshot-{step}") == ""
        assert again.step == step
        assert run(again) == metrics[step:]
        assert again.trained_tokens == slot.trained_tokens
        assert adapter(again, tmp_path / f"resumed-{step}") == expected
        again.leave()


def test_dropout_is_on_in_training_and_off_in_validation(base: LoadedBase, tmp_path: Path) -> None:
    results = {}
    for dropout in (0.0, 0.5):
        slot = seat(base, tuning={"type": "lora", "lora": {**LORA["lora"], "dropout": dropout}}, batch_size=5)
        slot.train_step()
        slot.snapshot().write(tmp_path / f"snapshot-{dropout}")
        results[dropout] = slot.train_step().metrics
        slot.leave()
    assert results[0.0]["train_loss"] != results[0.5]["train_loss"]
    measured = []
    for dropout in (0.0, 0.5):  # with the same weights, dropout or not makes no difference to a validation
        slot = seat(base, tuning={"type": "lora", "lora": {**LORA["lora"], "dropout": dropout}}, learning_rate=0.0)
        slot.restore(tmp_path / "snapshot-0.5")
        measured.append(slot.train_step().metrics["valid_loss"])
        slot.leave()
    assert measured[0] == measured[1]


def test_neighbours_do_not_change_a_bit(base: LoadedBase, tmp_path: Path) -> None:
    expected = {}
    for name, tuning in (("lora", LORA), ("prompt", PROMPT)):
        slot = seat(base, name, tuning)
        run(slot)
        expected[name] = adapter(slot, tmp_path / name)
        slot.leave()
    lora, prompt = seat(base, "lora", LORA), seat(base, "prompt", PROMPT)
    passing = seat(base, "passing by", LORA, seed=99, learning_rate=1.0)
    for step in range(lora.total_steps):
        if step < 3:
            passing.train_step()
        elif step == 3:
            passing.leave()
        lora.train_step()
        prompt.train_step()
    assert adapter(lora, tmp_path / "lora beside") == expected["lora"]
    assert adapter(prompt, tmp_path / "prompt beside") == expected["prompt"]
    lora.leave()
    prompt.leave()


def test_a_snapshot_from_another_environment_says_what_differs(base: LoadedBase, tmp_path: Path) -> None:
    slot = seat(base)
    slot.train_step()
    slot.snapshot().write(tmp_path / "snapshot")
    state = json.loads((tmp_path / "snapshot/state.json").read_text())
    state["environment"]["processor"] = "abacus"
    (tmp_path / "snapshot/state.json").write_text(json.dumps(state))
    assert slot.restore(tmp_path / "snapshot").startswith("processor: abacus -> ")
    slot.leave()


def test_a_damaged_snapshot_is_refused(base: LoadedBase, tmp_path: Path) -> None:
    slot = seat(base)
    slot.train_step()
    slot.snapshot().write(tmp_path / "snapshot")
    tensors = tmp_path / "snapshot/state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")
    with pytest.raises(JobError, match="damaged") as raised:
        slot.restore(tmp_path / "snapshot")
    assert raised.value.code == "snapshot_corrupt"
    slot.leave()


def test_a_snapshot_holds_parameters_moments_and_random_states(base: LoadedBase, tmp_path: Path) -> None:
    slot = seat(base, tuning=PROMPT)
    slot.train_step()
    slot.snapshot().write(tmp_path / "snapshot")
    slot.leave()
    assert set(load_file(tmp_path / "snapshot/state.safetensors")) == {
        "parameter/prompt_embeddings",
        "optimizer/step/prompt_embeddings",
        "optimizer/exp_avg/prompt_embeddings",
        "optimizer/exp_avg_sq/prompt_embeddings",
        "random/cpu",
    }


def test_a_diverging_job_fails_with_advice(base: LoadedBase) -> None:
    slot = seat(base, learning_rate=1e30)
    with pytest.raises(JobError, match="diverged") as raised:
        run(slot)
    slot.leave()
    assert raised.value.code == "training_diverged"


def test_a_job_too_large_for_the_memory_fails_alone(base: LoadedBase) -> None:
    small = recipe(LORA)
    giant = small.model_copy(update={"tuning": small.tuning.model_copy(update={"r": 2**40})})
    with pytest.raises(JobError) as raised:
        seat(base, recipe=giant)
    assert raised.value.code == "out_of_memory"


def test_a_job_can_continue_a_tuned_model(base: LoadedBase, tmp_path: Path) -> None:
    parent = seat(base, "parent")
    run(parent)
    adapter(parent, tmp_path / "parent")
    parent.leave()
    child = seat(base, "child")
    child.continue_from(tmp_path / "parent")
    child_metrics = run(child)
    child.leave()
    fresh = seat(base, "fresh")
    assert child_metrics[0]["train_loss"] < fresh.train_step().metrics["train_loss"]
    fresh.leave()
    other = seat(base, "other", PROMPT)
    with pytest.raises(JobError) as raised:
        other.continue_from(tmp_path / "parent")
    assert raised.value.code == "parent_mismatch"
    other.leave()


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, 100) for step in range(1, 101)]
    assert factors[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[-1] == pytest.approx(1 / 96)
    assert learning_rate_factor(1, 1) == 1.0


def test_turns_are_fair_in_tokens_not_in_steps() -> None:
    turns = Turns(turn_tokens=100)
    turns.enter("small")
    turns.enter("large")
    cost = {"small": 10, "large": 250}
    used = {"small": 0, "large": 0}
    for _ in range(1000):
        name = turns.next()
        assert name is not None
        turns.charge(name, cost[name])
        used[name] += cost[name]
    assert abs(used["small"] - used["large"]) <= 250 + 100


def test_a_turn_lasts_while_there_is_credit_and_a_job_may_leave_in_its_turn() -> None:
    turns = Turns(turn_tokens=100)
    assert turns.next() is None
    turns.enter("a")
    turns.enter("b")
    order = []
    for _ in range(6):
        name = turns.next()
        assert name is not None
        order.append(name)
        turns.charge(name, 40)
    assert order == ["a", "a", "a", "b", "b", "b"]
    turns.leave("a")
    turns.leave("a")
    assert turns.next() == "b"
    turns.leave("b")
    assert turns.next() is None


def test_who_is_held_is_passed_over_keeps_its_credit_and_comes_back_at_the_end_of_the_ring() -> None:
    turns = Turns(turn_tokens=100)
    turns.enter("a")
    turns.enter("b")
    turns.charge("a", 130)
    turns.hold("a")
    turns.hold("a")
    for _ in range(5):
        assert turns.next() == "b"
        turns.charge("b", 100)
    turns.hold("b")
    assert turns.next() is None and turns.idle
    turns.release("b")
    turns.release("a")
    turns.release("a")
    turns.hold("missing")
    turns.release("missing")
    assert turns.next() == "b" and not turns.idle
    turns.charge("b", 100)
    assert turns.next() == "a"
    turns.charge("a", 70)  # what is left of one turn after the 30 that it had overdrawn
    assert turns.next() == "b"
    turns.leave("a")
    turns.release("a")
    turns.leave("b")
    assert turns.next() is None
